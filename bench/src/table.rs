//! What was measured, in the order of measuring.

/// Rows of what, its figure and its goal.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<[String; 3]>,
}

impl Table {
    /// One figure, and the goal that it has, if it has one.
    pub(crate) fn row(&mut self, what: &str, figure: String, goal: &str) {
        self.rows.push([what.to_owned(), figure, goal.to_owned()]);
    }

    /// The table below its conditions.
    #[expect(clippy::print_stdout, reason = "the table is what the program is for")]
    pub(crate) fn print(&self, conditions: &str) {
        println!("# {conditions}");
        for [what, figure, goal] in &self.rows {
            let goal = if goal.is_empty() { String::new() } else { format!("(goal {goal})") };
            println!("{}", format!("{what:<40} {figure:<36} {goal}").trim_end());
        }
    }
}
