//! PromQL text: lexer, parser, checker and printer, with the positions of everything.
