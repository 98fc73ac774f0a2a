//! Operations, who calls them, and how reliably their parents come.

use std::collections::HashMap;
use std::sync::Arc;

use super::{FOLDED, MAX_WAIT_NANOS, MIN_SEEN, USUALLY_PERCENT};

/// Callers that are remembered of one operation; the rarest makes way.
const MAX_CALLERS: usize = 4;

/// Counts are halved when they reach this, so that what is usual may change.
const HALVE_AT: u32 = 4_096;

/// One span name of one service.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) service: u16,
    pub(super) name: Arc<str>,
    /// Spans of it whose parent came.
    seen: u32,
    /// Entries of it whose parent did not come, and nothing else says that it is one of ours.
    unproven: u32,
    /// How long a parent of it may take, nanoseconds.
    wait: u64,
    /// Operations that its parents were, with how often.
    callers: Vec<(u32, u32)>,
}

/// All operations, by number.
#[derive(Debug)]
pub(super) struct Edges {
    services: Vec<Arc<str>>,
    service_of: HashMap<Arc<str>, u16>,
    operations: Vec<Operation>,
    operation_of: HashMap<(u16, Arc<str>), u32>,
    max: (usize, usize),
    /// What operations beyond the bound are called.
    folded_name: Arc<str>,
    /// Spans whose service or operation was folded.
    pub(super) folded: u64,
}

impl Edges {
    pub(super) fn new(max_services: usize, max_operations: usize) -> Self {
        Self {
            services: Vec::new(),
            service_of: HashMap::new(),
            operations: Vec::new(),
            operation_of: HashMap::new(),
            max: (max_services.min(usize::from(u16::MAX)), max_operations),
            folded_name: FOLDED.into(),
            folded: 0,
        }
    }

    /// The number of an operation.
    pub(super) fn number(&mut self, service: &Arc<str>, name: &Arc<str>) -> u32 {
        let service = match self.service_of.get(service) {
            Some(number) => *number,
            None if self.services.len() < self.max.0 => self.add_service(Arc::clone(service)),
            None => {
                self.folded += 1;
                match self.service_of.get(FOLDED) {
                    Some(number) => *number,
                    None => self.add_service(FOLDED.into()),
                }
            }
        };
        let mut key = (service, Arc::clone(name));
        if let Some(number) = self.operation_of.get(&key) {
            return *number;
        }
        if self.operations.len() >= self.max.1 {
            self.folded += 1;
            key.1 = Arc::clone(&self.folded_name);
            if let Some(number) = self.operation_of.get(&key) {
                return *number;
            }
        }
        let number = self.operations.len() as u32;
        self.operations.push(Operation {
            service,
            name: Arc::clone(&key.1),
            seen: 0,
            unproven: 0,
            wait: 0,
            callers: Vec::new(),
        });
        self.operation_of.insert(key, number);
        number
    }

    fn add_service(&mut self, service: Arc<str>) -> u16 {
        let number = self.services.len() as u16;
        self.services.push(Arc::clone(&service));
        self.service_of.insert(service, number);
        number
    }

    pub(super) fn operation(&self, number: u32) -> &Operation {
        &self.operations[number as usize]
    }

    pub(super) fn service(&self, number: u16) -> &Arc<str> {
        &self.services[usize::from(number)]
    }

    pub(super) fn service_of(&self, operation: u32) -> u16 {
        self.operation(operation).service
    }

    /// A parent was there; which, and after how long, where that is known.
    pub(super) fn learn(&mut self, child: u32, parent: Option<u32>, waited: u64) {
        let operation = &mut self.operations[child as usize];
        operation.seen += 1;
        if operation.seen >= HALVE_AT {
            operation.seen /= 2;
            operation.unproven /= 2;
        }
        // Up at once, down slowly.
        let waited = waited.min(MAX_WAIT_NANOS);
        operation.wait = waited.max(operation.wait - operation.wait / 8);
        let Some(parent) = parent else { return };
        let callers = &mut operation.callers;
        if let Some((_, count)) = callers.iter_mut().find(|(known, _)| *known == parent) {
            *count = count.saturating_add(1);
        } else if callers.len() < MAX_CALLERS {
            callers.push((parent, 1));
        } else if let Some(rarest) = callers.iter_mut().min_by_key(|(_, count)| *count) {
            *rarest = (parent, 1);
        }
    }

    /// An entry's parent did not come, and nothing says that it is one of ours.
    pub(super) fn learn_unproven(&mut self, child: u32) {
        let operation = &mut self.operations[child as usize];
        operation.unproven += 1;
        if operation.unproven >= HALVE_AT {
            operation.seen /= 2;
            operation.unproven /= 2;
        }
    }

    /// How long a parent of an operation may take, nanoseconds.
    pub(super) fn patience(&self, operation: u32) -> u64 {
        self.operation(operation).wait.saturating_mul(2).min(MAX_WAIT_NANOS)
    }

    /// Whether parents of it were ever there.
    pub(super) fn was_seen(&self, operation: u32) -> bool {
        self.operation(operation).seen > 0
    }

    /// Whether nearly all of its parents were.
    pub(super) fn is_usually_seen(&self, operation: u32) -> bool {
        let Operation { seen, unproven, .. } = self.operation(operation);
        let (seen, all) = (u64::from(*seen), u64::from(*seen) + u64::from(*unproven));
        seen >= u64::from(MIN_SEEN) && seen * 100 >= all * USUALLY_PERCENT
    }

    /// Who usually calls an operation: from another service, where `is_entry`.
    pub(super) fn usual_caller(&self, operation: u32, is_entry: bool) -> Option<u32> {
        let of = self.operation(operation);
        of.callers
            .iter()
            .filter(|(caller, _)| !is_entry || self.service_of(*caller) != of.service)
            .max_by_key(|(caller, count)| (*count, std::cmp::Reverse(*caller)))
            .map(|(caller, _)| *caller)
    }

    /// Whether a service is known to call an operation.
    pub(super) fn is_caller(&self, service: u16, operation: u32) -> bool {
        let of = self.operation(operation);
        service != of.service
            && of.callers.iter().any(|(caller, _)| self.service_of(*caller) == service)
    }
}
