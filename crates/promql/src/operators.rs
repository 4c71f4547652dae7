//! Operators between two vectors.

use futures::FutureExt as _;
use futures::future::BoxFuture;

use trilith_model::{Error, Label, Labels, Result, task};
use trilith_promql_syntax::Text;
use trilith_query::vector::matching::set_operation;
use trilith_query::vector::{BinaryOp, Block, Grid, Join, MatchError, Remark, Remarks};

use crate::ast::{Binary, Expr, ExprKind, Set, Span, ValueType};
use crate::eval::{Evaluator, execution};
use crate::names::same_labelset;
use crate::notes::Notes;

/// One operator between two vectors.
#[derive(Clone, Copy)]
pub(crate) enum Link<'a> {
    /// With the span of the whole operation.
    Operator(&'a Binary, Span),
    Set(&'a Set),
}

impl<'a> Link<'a> {
    fn between_vectors(expr: &'a Expr) -> Option<Self> {
        match &expr.kind {
            ExprKind::Set(s) => Some(Link::Set(s)),
            ExprKind::Binary(b) if [&b.lhs, &b.rhs].iter().all(|e| e.value_type() == ValueType::Vector) => {
                Some(Link::Operator(b, expr.span))
            }
            _ => None,
        }
    }

    fn lhs(self) -> &'a Expr {
        match self {
            Link::Operator(b, _) => &b.lhs,
            Link::Set(s) => &s.lhs,
        }
    }

    fn rhs(self) -> &'a Expr {
        match self {
            Link::Operator(b, _) => &b.rhs,
            Link::Set(s) => &s.rhs,
        }
    }
}

impl Evaluator {
    /// A chain leans to the left and is evaluated in a loop, which keeps the depth of the recursion; the two operands of
    /// its innermost link are read at the same time.
    pub(crate) fn vector_chain<'a>(&'a self, outermost: Link<'a>, grid: Grid) -> BoxFuture<'a, Result<Block>> {
        async move {
            let mut links = vec![outermost];
            let mut innermost = outermost.lhs();
            while let Some(link) = Link::between_vectors(innermost) {
                links.push(link);
                innermost = link.lhs();
            }
            let mut left = None;
            for link in links.into_iter().rev() {
                let (l, right) = match left.take() {
                    Some(l) => (l, self.vector(link.rhs(), grid).await?),
                    None => futures::try_join!(self.vector(innermost, grid), self.vector(link.rhs(), grid))?,
                };
                let ctx = self.ctx.clone();
                left = Some(match link {
                    Link::Operator(b, at) => {
                        let join = Join {
                            op: b.op,
                            return_bool: b.return_bool,
                            matching: b.matching.clone(),
                            names: self.name_removal(),
                        };
                        let items = l.values.len() + right.values.len();
                        let joined = task::compute_sized(items, move || join.run(&ctx, &l, &right));
                        let (block, remarks) = joined.await?.map_err(match_error)?;
                        operator_remarks(&self.notes, at, b.op, remarks);
                        block
                    }
                    Link::Set(s) => {
                        let (op, matching) = (s.op, s.matching.clone());
                        let items = l.values.len() + right.values.len();
                        let result = task::compute_sized(items, move || set_operation(&ctx, l, right, op, &matching));
                        result.await?.map_err(match_error)?
                    }
                });
            }
            left.ok_or_else(|| Error::internal("a chain has at least one link"))
        }
        .boxed()
    }
}

/// Words the remarks of an operator. `at`: the whole operation.
pub(crate) fn operator_remarks(notes: &Notes, at: Span, op: BinaryOp, remarks: Remarks) {
    let (sign, operation) = (
        op.as_str(),
        if op == BinaryOp::Sub { "subtraction" } else { "addition" },
    );
    for remark in remarks {
        match remark {
            Remark::IncompatibleTypes { left, right } => notes.info(
                at,
                format_args!(
                    "incompatible sample types encountered for binary operator \"{sign}\": {} {sign} {}",
                    left.as_str(),
                    right.as_str()
                ),
            ),
            Remark::IncompatibleBuckets => notes.warn(
                at,
                format_args!("incompatible bucket layout encountered for binary operator {sign}"),
            ),
            Remark::ConflictingResets => notes.warn(
                at,
                format_args!("conflicting counter resets during histogram {operation}"),
            ),
            Remark::BoundsReconciled => notes.info(
                at,
                format_args!("mismatched custom buckets were reconciled during {operation}"),
            ),
            Remark::HistogramIgnored | Remark::MixedGroup | Remark::MixedSchemas { .. } => {}
        }
    }
}

fn match_error(e: MatchError) -> Error {
    match e {
        MatchError::Duplicate {
            group,
            one_side,
            first,
            second,
        } => {
            // In the order of their texts, so that the message does not depend on the order of the store.
            let (group, mut first, mut second) = (shown(&group), shown(&first), shown(&second));
            if first > second {
                std::mem::swap(&mut first, &mut second);
            }
            execution(format!(
                "found duplicate series for the match group {group} on the {one_side} hand-side of the operation: \
                 [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
            ))
        }
        MatchError::ManyToOne => {
            execution("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)")
        }
        MatchError::NotUnique => execution("multiple matches for labels: grouping labels must ensure unique matches"),
        MatchError::SameLabels => same_labelset(),
        MatchError::Other(e) => e,
    }
}

/// A label set as Prometheus shows it: names that are not plain stand in quotes.
fn shown(labels: &Labels) -> String {
    let plain = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|c| c == b'_' || c.is_ascii_alphanumeric())
    };
    let label = |l: Label<'_>| {
        let value = Text::from(l.value);
        if plain(l.name) {
            format!("{}={value}", l.name)
        } else {
            format!("{}={value}", Text::from(l.name))
        }
    };
    let all: Vec<String> = labels.iter().map(label).collect();
    format!("{{{}}}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_in_errors() {
        let labels = Labels::from_pairs([("__name__", "m"), ("a", "x\"\n"), ("b.c", "\u{200b}")]);
        assert_eq!(shown(&labels), r#"{__name__="m", a="x\"\n", "b.c"="\u200b"}"#);
    }
}
