//! What several of Terra's types carry in one shape: heart rate data, oxygen saturation.

use crate::error::Reject;
use crate::model::metric;
use crate::vendors::terra::record::{Series, Sheet, integer, number, samples, series, visit};
use crate::vendors::wire::json::At;

/// The series of a `heart_rate_data` object, below it.
pub(super) const SERIES: &[Series] = &[
    series(&["detailed", "hr_samples"], "bpm", "heart_rate"),
    series(&["detailed", "hrv_samples_rmssd"], "hrv_rmssd", "hrv_rmssd"),
    series(&["detailed", "hrv_samples_sdnn"], "hrv_sdnn", "hrv_sdnn"),
];

/// Reads the samples of a `heart_rate_data` object. `context` is the item's (`sleep`, `workout`);
/// where it has none, a sample's own counts: 1 active, 2 not active, 0 not set, which is a value
/// like any.
pub(super) fn rates(
    sheet: &mut Sheet<'_>,
    item: &At<'_>,
    path: &[&'static str],
    context: Option<&'static str>,
) -> Result<(), Reject> {
    visit(item, path, &mut |heart| {
        for series in SERIES {
            let Some(metric) = metric::find(series.metric) else { continue };
            samples(heart, sheet.zone, series, &mut |sample, time, value| {
                let own = match integer(sample, &["context"])? {
                    Some(1) => Some("active"),
                    Some(2) => Some("rest"),
                    _ => None,
                };
                sheet.add_at(metric, value, (time.at_us, None), None, context.or(own));
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// Where an item keeps its oxygen saturation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saturation {
    pub(super) samples: &'static [&'static str],
    pub(super) mean: &'static [&'static str],
    pub(super) mean_metric: &'static str,
    pub(super) context: Option<&'static str>,
}

/// Reads oxygen saturation: blood's is `spo2`, muscle's (type 1) is another thing and has no
/// metric.
///
/// The mean does not say whose it is, so it is left out where a sample says muscle.
pub(super) fn saturation(
    sheet: &mut Sheet<'_>,
    item: &At<'_>,
    place: &Saturation,
) -> Result<(), Reject> {
    let mut muscle = false;
    if let Some(metric) = metric::find("spo2") {
        let list = series(place.samples, "percentage", "spo2");
        samples(item, sheet.zone, &list, &mut |sample, time, value| {
            if integer(sample, &["type"])? == Some(1) {
                muscle = true;
            } else {
                sheet.add_at(metric, value, (time.at_us, None), None, place.context);
            }
            Ok(())
        })?;
    }
    let mean = number(item, place.mean)?;
    if let (Some(value), Some(metric), false) = (mean, metric::find(place.mean_metric), muscle) {
        let spot = place.mean_metric == "spo2";
        let method = spot.then_some("mean");
        sheet.add(metric, value, method, place.context.filter(|_| spot));
    }
    Ok(())
}
