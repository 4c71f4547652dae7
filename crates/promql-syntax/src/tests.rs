mod corpus;
mod errors;
mod generate;
mod oracle;
mod properties;
mod shape;
