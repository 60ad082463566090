//! What is told of a run: the document of its results, and everything that is made from it.
//!
//! - `results.rs`, `latency_histogram.rs`, `series.rs`, `machine.rs`: the document, which the engine fills.
//! - `threshold.rs`: what a run must reach.
//! - `html.rs`, `plots.rs`, `chart.rs`, `units.rs`: the report as one HTML file.
//! - `summary.rs`, `hdr_log.rs`: a run for a terminal, for `jq`, and for viewers of HdrHistograms.
//! - `live/`: a run while it goes on.
//! - `comparison.rs`: two runs side by side.

mod chart;
pub mod comparison;
pub mod hdr_log;
pub mod html;
pub mod latency_histogram;
pub mod live;
pub mod machine;
mod plots;
pub mod results;
pub mod series;
#[cfg(test)]
pub(crate) mod specimen;
pub mod summary;
pub mod threshold;
pub mod units;
