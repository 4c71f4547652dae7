//! Trees as text of lines no longer than they need be, as upstream's prettifier.
//!
//! An expression whose one-line form is longer than [`WIDTH`] is broken at its outermost operator, call or parenthesis,
//! and its parts are treated likewise, two spaces further in.

use std::fmt::{self, Write};

use crate::ast::{Expr, ExprKind};
use crate::print::{head, is_arithmetic, one_line, operator, suffix};

/// Bytes of a one-line form above which it is broken.
const WIDTH: usize = 100;

/// Bytes of an answer. Every operator of a chain moves what is left of it further in, so that the text can grow with
/// the square of the query.
const TEXT_BYTES_MAX: usize = 32 << 20;

/// The text is longer than 32 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the formatted query is longer than {TEXT_BYTES_MAX} bytes")]
pub struct TooLong;

/// # Errors
/// When the text is too long.
pub fn pretty(expr: &Expr) -> Result<String, TooLong> {
    pretty_to_width(expr, WIDTH)
}

/// Lines are broken above `width` bytes.
pub(crate) fn pretty_to_width(expr: &Expr, width: usize) -> Result<String, TooLong> {
    let mut printer = Printer {
        out: Bounded {
            text: String::new(),
            left: TEXT_BYTES_MAX,
        },
        width,
    };
    printer.expr(expr, 0, false).map_err(|_| TooLong)?;
    Ok(printer.out.text)
}

/// Refuses what exceeds the bytes left.
struct Bounded {
    text: String,
    left: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.left = self.left.checked_sub(s.len()).ok_or(fmt::Error)?;
        self.text.push_str(s);
        Ok(())
    }
}

struct Count(usize);

impl Write for Count {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(s.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

struct Printer {
    out: Bounded,
    width: usize,
}

impl Printer {
    fn indent(&mut self, level: usize) -> fmt::Result {
        // A formatter pads at most 65,535 characters.
        for _ in 0..level {
            self.out.write_str("  ")?;
        }
        Ok(())
    }

    /// Whether the one-line form fits. Printing stops where it does not.
    fn fits(&self, e: &Expr) -> bool {
        write!(Count(self.width), "{e}").is_ok()
    }

    /// `followed`: an arithmetic operator comes next.
    fn expr(&mut self, e: &Expr, level: usize, followed: bool) -> fmt::Result {
        match &e.kind {
            ExprKind::Binary(_) => self.chain(e, level, followed),
            // Upstream does not indent a subquery that fits.
            ExprKind::Subquery(_) if self.fits(e) => write!(self.out, "{}", one_line(e, followed)),
            ExprKind::Subquery(s) => {
                self.expr(&s.expr, level, false)?;
                write!(self.out, "{}", suffix(s, followed))
            }
            ExprKind::Unary(u) => {
                self.indent(level)?;
                self.out.write_char(if u.negative { '-' } else { '+' })?;
                // The operand is indented as if it stood alone; that space goes.
                let start = self.out.text.len();
                self.expr(&u.expr, level, followed)?;
                let operand = &self.out.text[start..];
                let spaces = operand.len() - operand.trim_start().len();
                self.out.text.drain(start..start + spaces);
                Ok(())
            }
            ExprKind::Aggregate(a) if !self.fits(e) => {
                self.indent(level)?;
                writeln!(self.out, "{}(", head(a))?;
                if let Some(param) = &a.param {
                    self.expr(param, level + 1, false)?;
                    self.out.write_str(",\n")?;
                }
                self.expr(&a.expr, level + 1, false)?;
                self.close(level)
            }
            ExprKind::Call(c) if !self.fits(e) => {
                self.indent(level)?;
                writeln!(self.out, "{}(", c.function.name)?;
                for (i, arg) in c.args.iter().enumerate() {
                    self.out.write_str(if i > 0 { ",\n" } else { "" })?;
                    self.expr(arg, level + 1, false)?;
                }
                self.close(level)
            }
            ExprKind::Paren(inner) if !self.fits(e) => {
                self.indent(level)?;
                self.out.write_str("(\n")?;
                self.expr(inner, level + 1, false)?;
                self.close(level)
            }
            _ => {
                self.indent(level)?;
                write!(self.out, "{}", one_line(e, followed))
            }
        }
    }

    fn close(&mut self, level: usize) -> fmt::Result {
        self.out.write_char('\n')?;
        self.indent(level)?;
        self.out.write_char(')')
    }

    /// Operators along the left edge: those that do not fit on one line get a line each, the outermost the least
    /// indented.
    fn chain(&mut self, outermost: &Expr, level: usize, followed: bool) -> fmt::Result {
        let (mut broken, mut e, mut level) = (Vec::new(), outermost, level);
        let mut operators = outermost.left_edge().0.len();
        while let ExprKind::Binary(b) = &e.kind
            // An operator and its operand are four bytes at least: long chains need not be printed to know.
            && (operators > self.width / 4 || !self.fits(e))
        {
            broken.push(b);
            operators -= 1;
            level += 1;
            e = &b.lhs;
        }
        broken.reverse();
        let next = |i: usize| broken.get(i).map_or(followed, |b| is_arithmetic(b));
        match &e.kind {
            ExprKind::Binary(_) => {
                self.indent(level)?;
                write!(self.out, "{}", one_line(e, next(0)))?;
            }
            _ => self.expr(e, level, next(0))?,
        }
        for (i, b) in broken.iter().enumerate() {
            level -= 1;
            self.out.write_char('\n')?;
            self.indent(level)?;
            writeln!(self.out, "{}", operator(b))?;
            self.expr(&b.rhs, level + 1, next(i + 1))?;
        }
        Ok(())
    }
}
