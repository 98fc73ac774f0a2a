//! Conditions put together.

use super::Expression;

/// What does not hold.
pub(super) fn negated(expression: Expression) -> Expression {
    Expression::Not(Box::new(expression))
}

/// Joins parts, those of the same kind in one list.
pub(super) fn joined(
    mut parts: Vec<Expression>,
    join: impl Fn(Vec<Expression>) -> Expression,
) -> Expression {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let like = join(Vec::new());
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match (part, &like) {
            (Expression::And(inner), Expression::And(_))
            | (Expression::Or(inner), Expression::Or(_)) => flat.extend(inner),
            (part, _) => flat.push(part),
        }
    }
    join(flat)
}
