//! What benchmarks share: medians, a process's CPU time and memory, tables with a ratio.

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// User and system time of a process, in seconds (proc(5), `stat`, fields 14 and 15).
pub fn process_cpu(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

/// Resident memory of a process, in KiB.
pub fn process_memory(id: u32) -> f64 {
    shared_testkit::memory::resident(id).unwrap_or_default() as f64
}

/// A ratio beside what is asked of it.
pub fn target(name: &str, ratio: f64, wanted: std::ops::RangeInclusive<f64>) {
    let (from, to) = (wanted.start(), wanted.end());
    let asked = if to.is_finite() { format!("at most {to}") } else { format!("at least {from}") };
    let met = if wanted.contains(&ratio) { "met" } else { "MISSED" };
    println!("  {name}: {ratio:.2}x, target {asked}x: {met}");
}

/// One measurement in several ways.
#[derive(Debug)]
pub struct Table {
    title: String,
    rows: Vec<(String, String, f64, String)>,
}

impl Table {
    /// An empty one.
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), rows: Vec::new() }
    }

    /// A way, its value, its ratio to the base, and a remark.
    pub fn row(&mut self, name: &str, value: String, ratio: f64, remark: String) {
        self.rows.push((name.to_owned(), value, ratio, remark));
    }

    /// Prints it.
    pub fn print(&self, base: &str) {
        println!("\n{}; ratio to {base}", self.title);
        for (name, value, ratio, remark) in &self.rows {
            println!("  {name:<12} {value:>8}  {ratio:>5.2}x {remark}");
        }
    }
}
