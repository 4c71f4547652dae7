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

    /// The operator between elements of vectors: a comparison without `bool` keeps `keep` or nothing.
    #[inline]
    pub fn element(self, a: f64, b: f64, return_bool: bool, keep: f64) -> f64 {
        let v = self.scalar(a, b);
        if !self.is_comparison() || return_bool {
            v
        } else if v == 1.0 {
            keep
        } else {
            ABSENT
        }
    }
}

/// Go's and C's `pow` agree with IEEE 754 `pown` where Rust's `powf` does; spelt out for 1^NaN.
fn pow(a: f64, b: f64) -> f64 {
    if a == 1.0 { 1.0 } else { a.powf(b) }
}

/// Applies an operator between a row and a scalar per step.
pub fn with_scalars(row: &mut [f64], scalars: &[f64], op: BinaryOp, scalar_left: bool, return_bool: bool) {
    for (v, s) in row.iter_mut().zip(scalars) {
        if !is_absent(*v) {
            let (a, b) = if scalar_left { (*s, *v) } else { (*v, *s) };
            *v = op.element(a, b, return_bool, *v);
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
