//! s3server
