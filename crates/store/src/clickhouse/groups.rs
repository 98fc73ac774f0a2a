//! Sessions and users over all servers. Which come, and in which order, SQL tells; their totals are
//! added up here from the summaries of their traces, as the embedded store does.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use throughline_trace::{TraceId, TraceSummary};

use super::RemoteReader;
use super::conditions::{Conditions, texts};
use crate::control::hex;
use crate::error::QueryError;
use crate::page::page_items;
use crate::query::{Page, TraceFilter};
use crate::read_search::MAX_SEARCH_MILLIS;
use crate::read_sessions::{Group, GroupSummary, MAX_SESSION_TRACES};

/// Traces whose summaries are read at a time.
const TRACES_AT_A_TIME: usize = 1_000;

/// Where a group stands: by the start of its latest trace that meets the filter, downwards, then by
/// name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    latest_unix_nano: u64,
    name: String,
    /// Where the first of all pages began. Traces that started later came later, and place nothing: a
    /// group whose turn is still to come would move to a page that was given already.
    top_unix_nano: u64,
}

/// First characters of the cursors of a list.
fn prefix(group: Group) -> &'static str {
    match group {
        Group::Session => "sc2",
        Group::User => "uc2",
    }
}

/// The column of a list.
fn column(group: Group) -> &'static str {
    match group {
        Group::Session => "sessions",
        Group::User => "users",
    }
}

impl Place {
    fn to_cursor(&self, group: Group) -> String {
        let Self { latest_unix_nano, top_unix_nano, name } = self;
        let name = hex(name.as_bytes());
        format!("{}{latest_unix_nano:016x}{top_unix_nano:016x}{name}", prefix(group))
    }

    fn of_cursor(group: Group, cursor: &str) -> Result<Self, QueryError> {
        let parse = || {
            let digits = cursor.strip_prefix(prefix(group))?;
            let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            (is_hex && digits.len() % 2 == 0).then_some(())?;
            let (time, top, name) = (digits.get(..16)?, digits.get(16..32)?, digits.get(32..)?);
            let byte = |at: usize| u8::from_str_radix(&name[at..at + 2], 16).ok();
            let name: Option<Vec<u8>> = (0..name.len()).step_by(2).map(byte).collect();
            Some(Self {
                latest_unix_nano: u64::from_str_radix(time, 16).ok()?,
                name: String::from_utf8(name?).ok()?,
                top_unix_nano: u64::from_str_radix(top, 16).ok()?,
            })
        };
        parse().ok_or_else(|| QueryError::Cursor(cursor.chars().take(80).collect()))
    }
}

impl RemoteReader {
    /// Sessions or users of the traces that meet the filter, the one whose trace started last first.
    /// Totals are of all traces of each, whether they meet the filter or not.
    ///
    /// # Errors
    /// [`QueryError::Cursor`]; [`QueryError::ClickHouse`] when it cannot be asked.
    pub(crate) async fn groups(
        &self,
        group: Group,
        filter: &TraceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<GroupSummary>, QueryError> {
        let begin = Instant::now();
        let after = cursor.map(|cursor| Place::of_cursor(group, cursor)).transpose()?;
        let items = page_items(limit);
        let mut places = self.group_places(group, filter, after.as_ref(), items + 1).await?;
        let has_more = places.len() > items;
        places.truncate(items);
        let traces = self.traces_of_groups(group, &places).await?;
        let mut all = Totals::new(&places, &traces);
        let ids: Vec<TraceId> = all.ids();
        let mut is_stopped = false;
        for (at, ids) in ids.chunks(TRACES_AT_A_TIME).enumerate() {
            if at > 0 && begin.elapsed() > Duration::from_millis(MAX_SEARCH_MILLIS) {
                is_stopped = true;
                break;
            }
            let mut known = self.known(ids).await?;
            let summaries = ids.iter().filter_map(|id| known.remove(id)?.joined());
            all.summaries.extend(summaries.map(|summary| (summary.trace_id, summary)));
        }
        let mut page = Page::empty();
        let mut last = None;
        for place in &places {
            let summary = all.total(group, &place.name);
            if is_stopped && summary.is_none() {
                // The next page begins with it, and has all the time for it.
                page.next = last.map(|place: &Place| place.to_cursor(group));
                return Ok(page);
            }
            page.items.extend(summary);
            last = Some(place);
        }
        page.next = last.filter(|_| has_more).map(|place| place.to_cursor(group));
        Ok(page)
    }

    async fn group_places(
        &self,
        group: Group,
        filter: &TraceFilter,
        after: Option<&Place>,
        most: usize,
    ) -> Result<Vec<Place>, QueryError> {
        let mut of_traces = Conditions::exact(filter);
        if let Some(after) = after {
            of_traces.add("start <= {top:UInt64}", "top", after.top_unix_nano);
        }
        let mut of_groups = Conditions::default();
        if let Some(wanted) = group.wanted(filter) {
            of_groups.add("name = {name:String}", "name", wanted);
        }
        let mut behind = Conditions::default();
        if let Some(after) = after {
            let sql = "(latest < {at:UInt64} OR latest = {at:UInt64} AND name > {after:String})";
            behind.add(sql, "at", after.latest_unix_nano);
            behind.values.push(("after", after.name.clone()));
        }
        let sql = format!(
            "SELECT name, max(start) AS latest FROM (
                SELECT trace_id, min(start_unix_nano) AS start, groupUniqArrayArray({}) AS names
                FROM trace_parts GROUP BY trace_id HAVING max(span_count) > 0{})
             ARRAY JOIN names AS name WHERE 1{} GROUP BY name HAVING 1{}
             ORDER BY latest DESC, name LIMIT {{limit:UInt64}} FORMAT JSONEachRow",
            column(group),
            of_traces.sql,
            of_groups.sql,
            behind.sql
        );
        let mut values = of_traces.values;
        values.extend(of_groups.values);
        values.extend(behind.values);
        values.push(("limit", most.to_string()));
        let rows = self.ask(&sql, &values).await?;
        let latest = |row: &serde_json::Value| row["latest"].as_u64().unwrap_or_default();
        let first = rows.first().map_or(0, latest);
        let top_unix_nano = after.map_or(first, |after| after.top_unix_nano);
        let place = |row: &serde_json::Value| Place {
            latest_unix_nano: latest(row),
            name: row["name"].as_str().unwrap_or_default().to_owned(),
            top_unix_nano,
        };
        Ok(rows.iter().map(place).collect())
    }

    /// The latest traces of each, one more than are summed up.
    async fn traces_of_groups(
        &self,
        group: Group,
        places: &[Place],
    ) -> Result<BTreeMap<String, Vec<TraceId>>, QueryError> {
        let mut found: BTreeMap<String, Vec<TraceId>> = BTreeMap::new();
        if places.is_empty() {
            return Ok(found);
        }
        let column = column(group);
        let sql = format!(
            "SELECT name, trace_id FROM (
                SELECT trace_id, min(start_unix_nano) AS start, groupUniqArrayArray({column}) AS names
                FROM trace_parts WHERE trace_id IN (
                    SELECT trace_id FROM trace_parts WHERE hasAny({column}, {{names:Array(String)}}))
                GROUP BY trace_id HAVING max(span_count) > 0)
             ARRAY JOIN names AS name WHERE has({{names:Array(String)}}, name)
             ORDER BY name, start DESC, trace_id LIMIT {} BY name FORMAT JSONEachRow",
            MAX_SESSION_TRACES + 1
        );
        let names = texts(places.iter().map(|place| place.name.as_str()));
        for row in self.ask(&sql, &[("names", names)]).await? {
            let name = row["name"].as_str().unwrap_or_default().to_owned();
            let id: Option<TraceId> = row["trace_id"].as_str().and_then(|id| id.parse().ok());
            found.entry(name).or_default().extend(id);
        }
        Ok(found)
    }
}

/// What groups of a page add up to.
struct Totals<'a> {
    places: &'a [Place],
    traces: &'a BTreeMap<String, Vec<TraceId>>,
    summaries: HashMap<TraceId, TraceSummary>,
}

impl<'a> Totals<'a> {
    fn new(places: &'a [Place], traces: &'a BTreeMap<String, Vec<TraceId>>) -> Self {
        Self { places, traces, summaries: HashMap::new() }
    }

    /// The traces to be read, those of the first group first, each once.
    fn ids(&self) -> Vec<TraceId> {
        let mut seen = std::collections::HashSet::new();
        let names = self.places.iter().filter_map(|place| self.traces.get(&place.name));
        names.flatten().copied().filter(|id| seen.insert(*id)).collect()
    }

    /// The totals of one; cut where it has more traces than are summed up, or not all of them were
    /// read in time. `None` when none was.
    fn total(&self, group: Group, name: &str) -> Option<GroupSummary> {
        let ids = self.traces.get(name)?;
        let mut summary = GroupSummary::empty(name);
        let most = MAX_SESSION_TRACES as usize;
        summary.is_cut = ids.len() > most;
        for id in ids.iter().take(most) {
            match self.summaries.get(id) {
                Some(trace) if group.names(trace).contains(name) => summary.add(trace),
                Some(_) => {}
                None => summary.is_cut = true,
            }
        }
        (summary.trace_count > 0).then_some(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_and_others_are_refused() {
        let name = "s \"ü\"'".to_owned();
        let place = Place { latest_unix_nano: u64::MAX - 9, name, top_unix_nano: u64::MAX - 2 };
        let cursor = place.to_cursor(Group::Session);
        assert_eq!(Place::of_cursor(Group::Session, &cursor).unwrap(), place);
        let moment = "0123456789abcdef";
        let (odd_name, not_utf8) =
            (format!("sc2{moment}{moment}0"), format!("sc2{moment}{moment}ff"));
        let before = format!("sc1{moment}{moment}");
        for odd in ["", "sc2", "sc2zz", "s2", "sc20123456789abcdef", &odd_name, &not_utf8, &before]
        {
            assert!(Place::of_cursor(Group::Session, odd).is_err(), "{odd}");
        }
        assert!(Place::of_cursor(Group::User, &cursor).is_err());
    }
}
