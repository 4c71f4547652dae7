//! Binary operators on cells.

use super::block::{ABSENT, is_absent};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    /// IEEE: division by zero gives an infinity or NaN.
    Div,
    /// Division by zero gives NaN (LogQL).
    DivOrNan,
    /// Sign of the dividend; by zero NaN.
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// `</`: the part of a histogram up to a value.
    TrimUpper,
    /// `>/`: the part of a histogram from a value on.
    TrimLower,
}

impl BinaryOp {
    pub const fn is_comparison(self) -> bool {
        use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
        matches!(self, Eq | Ne | Lt | Le | Gt | Ge)
    }

    /// Between a histogram and a number only.
    pub const fn is_trim(self) -> bool {
        matches!(self, BinaryOp::TrimUpper | BinaryOp::TrimLower)
    }

    /// Whether the result is another quantity than the operands, so that it has no name.
    pub const fn drops_name(self) -> bool {
        !self.is_comparison() && !self.is_trim()
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div | BinaryOp::DivOrNan => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
        }
    }

    /// The operator between two numbers; comparisons give 1 or 0, trimming a number gives NaN.
    pub fn scalar(self, a: f64, b: f64) -> f64 {
        match self {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div => a / b,
            BinaryOp::DivOrNan => {
                if b == 0.0 {
                    f64::NAN
                } else {
                    a / b
                }
            }
            BinaryOp::Mod => a % b,
            BinaryOp::Pow => pow(a, b),
            BinaryOp::Atan2 => a.atan2(b),
            BinaryOp::Eq => f64::from(a == b),
            BinaryOp::Ne => f64::from(a != b),
            BinaryOp::Lt => f64::from(a < b),
            BinaryOp::Le => f64::from(a <= b),
            BinaryOp::Gt => f64::from(a > b),
            BinaryOp::Ge => f64::from(a >= b),
            BinaryOp::TrimUpper | BinaryOp::TrimLower => f64::NAN,
        }
    }
}

/// Go's and C's `pow` agree with IEEE 754 `pown` where Rust's `powf` does; spelt out for 1^NaN.
fn pow(a: f64, b: f64) -> f64 {
    if a == 1.0 { 1.0 } else { a.powf(b) }
}

/// Applies an operator between two rows of floats; cells of `out` stay where a side is absent or a filter drops the
/// element.
pub fn between(left: &[f64], right: &[f64], op: BinaryOp, return_bool: bool, out: &mut [f64]) {
    dispatch(op, return_bool, Rows { left, right, out });
}

/// Applies an operator between a row and a scalar per step.
pub fn with_scalars(row: &mut [f64], scalars: &[f64], op: BinaryOp, scalar_left: bool, return_bool: bool) {
    let cells = RowWithScalars {
        row,
        scalars,
        scalar_left,
    };
    dispatch(op, return_bool, cells);
}

/// A loop over cells, compiled for every operator of its own.
trait Loop {
    /// Left and right become the result.
    fn arithmetic(self, f: impl Fn(f64, f64) -> f64);
    /// The vector's element, the left one of two, stays where `holds` of left and right is true.
    fn filter(self, holds: impl Fn(f64, f64) -> bool);
}

fn dispatch(op: BinaryOp, return_bool: bool, cells: impl Loop) {
    match (op, return_bool) {
        (BinaryOp::Add, _) => cells.arithmetic(|a, b| a + b),
        (BinaryOp::Sub, _) => cells.arithmetic(|a, b| a - b),
        (BinaryOp::Mul, _) => cells.arithmetic(|a, b| a * b),
        (BinaryOp::Div, _) => cells.arithmetic(|a, b| a / b),
        (BinaryOp::Eq, false) => cells.filter(|a, b| a == b),
        (BinaryOp::Ne, false) => cells.filter(|a, b| a != b),
        (BinaryOp::Lt, false) => cells.filter(|a, b| a < b),
        (BinaryOp::Le, false) => cells.filter(|a, b| a <= b),
        (BinaryOp::Gt, false) => cells.filter(|a, b| a > b),
        (BinaryOp::Ge, false) => cells.filter(|a, b| a >= b),
        // Rare, or dearer than the choice.
        _ => cells.arithmetic(|a, b| op.scalar(a, b)),
    }
}

struct Rows<'a> {
    left: &'a [f64],
    right: &'a [f64],
    out: &'a mut [f64],
}

impl Loop for Rows<'_> {
    #[inline]
    fn arithmetic(self, f: impl Fn(f64, f64) -> f64) {
        for ((out, l), r) in self.out.iter_mut().zip(self.left).zip(self.right) {
            if !is_absent(*l) && !is_absent(*r) {
                *out = f(*l, *r);
            }
        }
    }

    #[inline]
    fn filter(self, holds: impl Fn(f64, f64) -> bool) {
        for ((out, l), r) in self.out.iter_mut().zip(self.left).zip(self.right) {
            if !is_absent(*l) && !is_absent(*r) && holds(*l, *r) {
                *out = *l;
            }
        }
    }
}

struct RowWithScalars<'a> {
    row: &'a mut [f64],
    scalars: &'a [f64],
    scalar_left: bool,
}

impl Loop for RowWithScalars<'_> {
    #[inline]
    fn arithmetic(self, f: impl Fn(f64, f64) -> f64) {
        let cells = self.row.iter_mut().zip(self.scalars);
        let present = cells.filter(|(v, _)| !is_absent(**v));
        if self.scalar_left {
            present.for_each(|(v, s)| *v = f(*s, *v));
        } else {
            present.for_each(|(v, s)| *v = f(*v, *s));
        }
    }

    #[inline]
    fn filter(self, holds: impl Fn(f64, f64) -> bool) {
        let cells = self.row.iter_mut().zip(self.scalars);
        for (v, s) in cells.filter(|(v, _)| !is_absent(**v)) {
            let (l, r) = if self.scalar_left { (*s, *v) } else { (*v, *s) };
            if !holds(l, r) {
                *v = ABSENT;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ieee_rules() {
        assert_eq!(BinaryOp::Div.scalar(1.0, 0.0), f64::INFINITY);
        assert!(BinaryOp::DivOrNan.scalar(1.0, 0.0).is_nan());
        assert_eq!(BinaryOp::Mod.scalar(-5.0, 3.0), -2.0);
        assert!(BinaryOp::Mod.scalar(5.0, 0.0).is_nan());
        assert_eq!(BinaryOp::Pow.scalar(1.0, f64::NAN), 1.0);
        assert_eq!(BinaryOp::Ne.scalar(f64::NAN, f64::NAN), 1.0);
        assert_eq!(BinaryOp::Eq.scalar(f64::NAN, f64::NAN), 0.0);
    }

    #[test]
    fn filters_keep_the_vector_side() {
        let mut row = [4.0, 6.0, ABSENT];
        with_scalars(&mut row, &[5.0; 3], BinaryOp::Lt, true, false);
        assert!(is_absent(row[0]) && row[1] == 6.0 && is_absent(row[2]));
        let mut row = [4.0, 6.0, ABSENT];
        with_scalars(&mut row, &[5.0; 3], BinaryOp::Gt, false, true);
        assert!(row[0] == 0.0 && row[1] == 1.0 && is_absent(row[2]));
    }
}
