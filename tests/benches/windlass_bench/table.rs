//! The table that is printed.
use std::fmt;

/// One figure.
struct Row {
    what: String,
    reached: String,
    limit: String,
    share: String,
    target: String,
    met: Option<bool>,
}

/// Figures in the order in which they were measured; each is told on standard error as it comes.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// What this machine can do, or a figure without a target.
    pub(crate) fn plain(&mut self, what: &str, reached: String) {
        self.add(
            what,
            reached,
            String::new(),
            String::new(),
            String::new(),
            None,
        );
    }

    /// A rate that must be at least a share of the machine's own.
    pub(crate) fn share(
        &mut self,
        what: &str,
        rate: f64,
        of: &str,
        limit: f64,
        least: Option<f64>,
    ) {
        let share = rate / limit;
        self.add(
            what,
            per_second(rate),
            format!("{} {of}", per_second(limit)),
            format!("{share:.2}"),
            least.map_or_else(String::new, |least| format!("≥ {least}")),
            least.map(|least| share >= least),
        );
    }

    /// A figure that must stay below another.
    pub(crate) fn below(&mut self, what: &str, value: f64, unit: &str, most: f64) {
        self.add(
            what,
            format!("{} {unit}", round(value)),
            String::new(),
            String::new(),
            format!("< {} {unit}", round(most)),
            Some(value < most),
        );
    }

    fn add(
        &mut self,
        what: &str,
        reached: String,
        limit: String,
        share: String,
        target: String,
        met: Option<bool>,
    ) {
        eprintln!("{what}: {reached} {share}");
        self.0.push(Row {
            what: what.to_owned(),
            reached,
            limit,
            share,
            target,
            met,
        });
    }
}

pub(crate) fn per_second(rate: f64) -> String {
    format!("{}/s", round(rate))
}

fn round(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.1} k", v / 1_000.0),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| what | reached | this machine's limit | share | target | met |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|---|")?;
        for row in &self.0 {
            let met = match row.met {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {met} |",
                row.what, row.reached, row.limit, row.share, row.target
            )?;
        }
        Ok(())
    }
}
