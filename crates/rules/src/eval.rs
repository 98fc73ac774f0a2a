//! The evaluator: a walk over the nodes that borrows wherever it can.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::arithmetic::{arithmetic, negate};
use crate::ast::Operator;
use crate::collection::{Entries, Items, List, ListData, Map, MapData};
use crate::compare::{Budget, compare_numbers, equal, equal_bytes, order, weight};
use crate::error::{ErrorKind, EvalError, Limit};
use crate::functions::{MAX_ARGUMENTS, apply};
use crate::limits::{KEYS_PER_STEP, MAX_REMEMBERED, MAX_RESULT_BYTES};
use crate::lookup::{has, is_key, key_text, no_overload, select, whole};
use crate::node::{Macro, MacroKind, Node, Op};
use crate::schema::Scope;
use crate::value::Value;

/// What one evaluation knows and may still do.
pub(crate) struct Evaluation<'v> {
    scope: &'v dyn Scope,
    locals: Vec<Value<'v>>,
    remembered: [Option<Value<'v>>; MAX_REMEMBERED],
    budget: Budget,
}

type Outcome<'v> = Result<Value<'v>, EvalError>;

impl<'v> Evaluation<'v> {
    pub(crate) fn new(scope: &'v dyn Scope, steps: u64) -> Self {
        Self {
            scope,
            locals: Vec::new(),
            remembered: [const { None }; MAX_REMEMBERED],
            budget: Budget { left: steps },
        }
    }

    /// The value of a node.
    pub(crate) fn value(&mut self, node: &'v Node) -> Outcome<'v> {
        self.budget.take(1).map_err(|kind| kind.at(node.at))?;
        match &node.op {
            Op::Constant(value) => Ok(value.borrowed()),
            Op::Variable { index, name } => self
                .scope
                .variable(*index)
                .ok_or_else(|| ErrorKind::NoSuchVariable(name.clone()).at(node.at)),
            Op::Local(depth) => Ok(self.locals.get(*depth).cloned().unwrap_or(Value::Null)),
            Op::Field { base, index, key } => match self.value(base)? {
                Value::Record(record) => Ok(record.field(*index)),
                other => select(&other, key).map_err(|kind| kind.at(node.at)),
            },
            Op::Key { base, key, as_double } => {
                let base = self.value(base)?;
                if let Value::Map(map) = &base {
                    self.look_up(map).map_err(|kind| kind.at(node.at))?;
                }
                let found = match &base {
                    Value::Map(map) => {
                        map.get_str(key).ok_or_else(|| ErrorKind::NoSuchKey(key.clone()))
                    }
                    other => select(other, key),
                };
                match found.map_err(|kind| kind.at(node.at))? {
                    Value::Int(number) if *as_double => Ok(Value::Double(number as f64)),
                    Value::Uint(number) if *as_double => Ok(Value::Double(number as f64)),
                    found => Ok(found),
                }
            }
            Op::EqualText { inner, text, negated } => {
                let value = self.value(inner)?;
                let same = match value.as_str() {
                    Some(found) => equal_bytes(found.as_bytes(), text.as_bytes(), &mut self.budget)
                        .map_err(|kind| kind.at(node.at))?,
                    None => false,
                };
                Ok(Value::Bool(same != *negated))
            }
            Op::Order { operator, sides } => self.order(node, *operator, sides),
            Op::All(items) => self.chain(items, false),
            Op::Any(items) => self.chain(items, true),
            Op::Not(inner) => match self.value(inner)? {
                Value::Bool(truth) => Ok(Value::Bool(!truth)),
                other => Err(no_overload("!", &other, &other).at(node.at)),
            },
            Op::Call { builtin, args } => self.call(node, *builtin, args),
            Op::Remembered { slot, inner } => {
                if let Some(Some(value)) = self.remembered.get(*slot) {
                    return Ok(value.clone());
                }
                let value = self.value(inner)?;
                if let Some(place) = self.remembered.get_mut(*slot) {
                    *place = Some(value.clone());
                }
                Ok(value)
            }
            Op::Conditional(parts) => {
                let [condition, then, otherwise] = &**parts;
                match self.value(condition)? {
                    Value::Bool(true) => self.value(then),
                    Value::Bool(false) => self.value(otherwise),
                    other => Err(no_overload("?:", &other, &other).at(node.at)),
                }
            }
            _ => self.rarer(node),
        }
    }

    /// The operations that are no part of the usual rule, apart so that the usual ones stay small.
    #[inline(never)]
    fn rarer(&mut self, node: &'v Node) -> Outcome<'v> {
        let result = match &node.op {
            Op::Equal { sides, negated } => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                equal(&left, &right, &mut self.budget).map(|same| Value::Bool(same != *negated))
            }
            Op::Arithmetic { operator, sides } => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                arithmetic(*operator, left, right, &mut self.budget)
            }
            Op::Negate(inner) => negate(&self.value(inner)?),
            Op::Index { base, index } => {
                let (base, index) = (self.value(base)?, self.value(index)?);
                self.index(&base, &index)
            }
            Op::OptionalIndex { base, index } => {
                let (base, index) = (self.value(base)?, self.value(index)?);
                self.optional_index(base, &index)
            }
            Op::Has { base, index, key } => {
                let base = self.value(base)?;
                let steps = match &base {
                    Value::Map(map) => self.look_up(map),
                    _ => Ok(()),
                };
                steps.and_then(|()| has(&base, *index, key)).map(Value::Bool)
            }
            Op::KeyOr { base, key, default } => match self.value(base)? {
                Value::Map(map) => match self.look_up(&map).map(|()| map.get_str(key)) {
                    Ok(Some(found)) => Ok(found),
                    Ok(None) => return self.value(default),
                    Err(kind) => Err(kind),
                },
                other => Err(no_overload("get", &other, &other)),
            },
            Op::InTexts { inner, texts } => {
                let value = self.value(inner)?;
                let text = value.as_str();
                let is_in = text
                    .is_some_and(|text| texts.binary_search_by(|one| (**one).cmp(text)).is_ok());
                Ok(Value::Bool(is_in))
            }
            Op::In(sides) => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.contains(&left, &right)
            }
            Op::List(items) => {
                let mut made = Vec::with_capacity(items.len());
                for item in items {
                    made.push(self.value(item)?);
                }
                self.list(made)
            }
            Op::Map(entries) => return self.map(node, entries),
            Op::Matches { inner, pattern } => {
                let value = self.value(inner)?;
                match value.as_str() {
                    Some(text) => self
                        .budget
                        .take_bytes(text.len())
                        .map(|()| Value::Bool(pattern.is_match(text))),
                    None => Err(no_overload("matches", &value, &value)),
                }
            }
            Op::Macro(inner) => return self.run(node, inner),
            // Every other operation is done by `value`, which comes here for the rest alone.
            _ => Ok(Value::Null),
        };
        result.map_err(|kind| kind.at(node.at))
    }

    #[inline(never)]
    fn order(&mut self, node: &Node, operator: Operator, sides: &'v [Node; 2]) -> Outcome<'v> {
        let [left, right] = sides;
        let (left, right) = (self.value(left)?, self.value(right)?);
        let found = match compare_numbers(&left, &right) {
            Some(found) => found,
            None => order(&left, &right, operator.as_str(), &mut self.budget)
                .map_err(|kind| kind.at(node.at))?,
        };
        Ok(Value::Bool(found.is_some_and(|found| match operator {
            Operator::Less => found == Ordering::Less,
            Operator::LessOrEqual => found != Ordering::Greater,
            Operator::Greater => found == Ordering::Greater,
            _ => found != Ordering::Less,
        })))
    }

    /// `&&` (decided by false) or `||` (decided by true). An operand that decides makes the errors of
    /// others void, in whatever order they stand; without one, the error that comes first in the
    /// source is the result, so that the order of evaluation cannot be seen.
    #[inline(never)]
    fn chain(&mut self, items: &'v [Node], decisive: bool) -> Outcome<'v> {
        let mut first: Option<EvalError> = None;
        for item in items {
            let error = match self.value(item) {
                Ok(Value::Bool(truth)) if truth == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => continue,
                Ok(other) => {
                    no_overload(if decisive { "||" } else { "&&" }, &other, &other).at(item.at)
                }
                Err(error) if error.is_limit() => return Err(error),
                Err(error) => error,
            };
            if first.as_ref().is_none_or(|first| error.at.start < first.at.start) {
                first = Some(error);
            }
        }
        first.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    /// Takes the steps of finding a key: most maps are lists of pairs that are walked.
    #[inline]
    fn look_up(&mut self, map: &Map<'v>) -> Result<(), ErrorKind> {
        self.budget.take(map.len() as u64 / KEYS_PER_STEP)
    }

    #[inline(never)]
    fn call(
        &mut self,
        node: &Node,
        builtin: crate::functions::Builtin,
        args: &'v [Node],
    ) -> Outcome<'v> {
        let result = match args {
            // Most functions have one argument or two, and room for more is not free.
            [only] => {
                let only = self.value(only)?;
                apply(builtin, &[only], &mut self.budget)
            }
            [first, second] => {
                let pair = [self.value(first)?, self.value(second)?];
                apply(builtin, &pair, &mut self.budget)
            }
            _ => {
                let mut values = [const { Value::Null }; MAX_ARGUMENTS];
                for (place, arg) in values.iter_mut().zip(args) {
                    *place = self.value(arg)?;
                }
                let count = args.len().min(MAX_ARGUMENTS);
                apply(builtin, &values[..count], &mut self.budget)
            }
        };
        result.map_err(|kind| kind.at(node.at))
    }

    fn index(&mut self, base: &Value<'v>, index: &Value<'v>) -> Result<Value<'v>, ErrorKind> {
        match base {
            Value::List(list) => {
                let place = whole(index).ok_or_else(|| no_overload("[]", base, index))?;
                let found = usize::try_from(place).ok().and_then(|place| list.get(place));
                found.ok_or(ErrorKind::NoSuchIndex { index: place, length: list.len() })
            }
            Value::Map(map) => {
                self.look_up(map)?;
                match map.get(index) {
                    Some(found) => Ok(found),
                    None if is_key(index) => Err(ErrorKind::NoSuchKey(key_text(index))),
                    None => Err(no_overload("[]", base, index)),
                }
            }
            Value::Optional(Some(inner)) => self.optional_index((**inner).clone(), index),
            Value::Optional(None) => Ok(Value::Optional(None)),
            _ => Err(no_overload("[]", base, index)),
        }
    }

    fn optional_index(
        &mut self,
        base: Value<'v>,
        index: &Value<'v>,
    ) -> Result<Value<'v>, ErrorKind> {
        let base = match base {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => (*inner).clone(),
            base => base,
        };
        let found = match (&base, index.as_str()) {
            (Value::Record(record), Some(key)) => {
                let place = record.shape().index_of(key);
                place.filter(|place| record.is_set(*place)).map(|place| record.field(place))
            }
            (Value::List(list), _) => {
                let place = whole(index).ok_or_else(|| no_overload("[]", &base, index))?;
                usize::try_from(place).ok().and_then(|place| list.get(place))
            }
            (Value::Map(map), _) => {
                self.look_up(map)?;
                map.get(index)
            }
            _ => return Err(no_overload("[]", &base, index)),
        };
        Ok(Value::Optional(found.map(Arc::new)))
    }

    fn contains(&mut self, wanted: &Value<'v>, within: &Value<'v>) -> Result<Value<'v>, ErrorKind> {
        match within {
            Value::List(List(ListData::Texts(texts))) => Ok(Value::Bool(
                wanted.as_str().is_some_and(|text| texts.iter().any(|one| one == text)),
            )),
            Value::List(list) => {
                for item in list.iter() {
                    if equal(&item, wanted, &mut self.budget)? {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            Value::Map(map) => {
                self.look_up(map)?;
                Ok(Value::Bool(map.get(wanted).is_some()))
            }
            _ => Err(no_overload("in", wanted, within)),
        }
    }

    /// A list of values that were made here, if it is not too large.
    fn list(&mut self, items: Vec<Value<'v>>) -> Result<Value<'v>, ErrorKind> {
        let mut bytes = 0_usize;
        for item in &items {
            bytes = bytes.saturating_add(weight(item, &mut self.budget)?);
        }
        if bytes > MAX_RESULT_BYTES {
            return Err(ErrorKind::Limit(Limit::Size));
        }
        Ok(Value::List(List(ListData::Owned(Arc::new(Items { items, bytes })))))
    }

    fn map(&mut self, node: &Node, entries: &'v [(Node, Node)]) -> Outcome<'v> {
        let mut made: Vec<(Value<'v>, Value<'v>)> = Vec::with_capacity(entries.len());
        let mut bytes = 0_usize;
        for (key_node, value_node) in entries {
            let (key, value) = (self.value(key_node)?, self.value(value_node)?);
            if !is_key(&key) || matches!(key, Value::Double(_)) {
                return Err(no_overload("{}", &key, &key).at(key_node.at));
            }
            let steps = self.budget.take(made.len() as u64);
            steps.map_err(|kind| kind.at(node.at))?;
            if made.iter().any(|(other, _)| crate::compare::same_key(other, &key)) {
                return Err(ErrorKind::DuplicateKey.at(key_node.at));
            }
            for part in [&key, &value] {
                let part = weight(part, &mut self.budget).map_err(|kind| kind.at(node.at))?;
                bytes = bytes.saturating_add(part);
            }
            made.push((key, value));
        }
        if bytes > MAX_RESULT_BYTES {
            return Err(ErrorKind::Limit(Limit::Size).at(node.at));
        }
        Ok(Value::Map(Map(MapData::Owned(Arc::new(Entries { entries: made, bytes })))))
    }

    fn run(&mut self, node: &'v Node, inner: &'v Macro) -> Outcome<'v> {
        let range = self.value(&inner.range)?;
        let elements: Box<dyn Iterator<Item = Value<'v>>> = match &range {
            Value::List(list) => Box::new(list.iter()),
            Value::Map(map) => Box::new(map.iter().map(|(key, _)| key)),
            other => return Err(no_overload("macro", other, other).at(node.at)),
        };
        self.locals.truncate(inner.local);
        self.locals.resize(inner.local + 1, Value::Null);
        let result = self.elements(node, inner, elements);
        self.locals.truncate(inner.local);
        result
    }

    fn elements<'r>(
        &mut self,
        node: &'v Node,
        inner: &'v Macro,
        elements: Box<dyn Iterator<Item = Value<'v>> + 'r>,
    ) -> Outcome<'v> {
        let mut first_error = None;
        let mut matched = 0_u64;
        let mut made = Vec::new();
        let mut bytes = 0_usize;
        for element in elements {
            self.budget.take(1).map_err(|kind| kind.at(node.at))?;
            if let Some(place) = self.locals.get_mut(inner.local) {
                *place = element.clone();
            }
            let truth = match &inner.condition {
                Some(condition) => self.truth(condition),
                None => Ok(true),
            };
            match (inner.kind, truth) {
                (MacroKind::All, Ok(false)) => return Ok(Value::Bool(false)),
                (MacroKind::Exists, Ok(true)) => return Ok(Value::Bool(true)),
                (MacroKind::All | MacroKind::Exists, Err(error)) if !error.is_limit() => {
                    first_error = first_error.or(Some(error));
                }
                (_, Err(error)) => return Err(error),
                (MacroKind::ExistsOne, Ok(true)) => matched += 1,
                (MacroKind::Map | MacroKind::Filter, Ok(true)) => {
                    let item = match &inner.transform {
                        Some(transform) => self.value(transform)?,
                        None => element,
                    };
                    let own = weight(&item, &mut self.budget).map_err(|kind| kind.at(node.at))?;
                    bytes = bytes.saturating_add(own);
                    if bytes > MAX_RESULT_BYTES {
                        return Err(ErrorKind::Limit(Limit::Size).at(node.at));
                    }
                    made.push(item);
                }
                _ => {}
            }
        }
        match (inner.kind, first_error) {
            (_, Some(error)) => Err(error),
            (MacroKind::All, None) => Ok(Value::Bool(true)),
            (MacroKind::Exists, None) => Ok(Value::Bool(false)),
            (MacroKind::ExistsOne, None) => Ok(Value::Bool(matched == 1)),
            _ => Ok(Value::List(List(ListData::Owned(Arc::new(Items { items: made, bytes }))))),
        }
    }

    /// The truth of a condition.
    pub(crate) fn truth(&mut self, node: &'v Node) -> Result<bool, EvalError> {
        match self.value(node)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(no_overload("condition", &other, &other).at(node.at)),
        }
    }
}
