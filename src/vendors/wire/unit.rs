//! Vendors' units → ours: a closed table. A unit that is not in it is refused, never guessed.
//!
//! The key is the pair (our unit, the sender's spelling), so that a spelling means something only where we know
//! what is measured: `count` is steps for steps and kg/m² for a body mass index, and a glucose in `mmol/L` has a
//! molar mass because it is glucose. Spellings are compared byte for byte: `Cal` is a kilocalorie, `cal` is a
//! thousandth of one. No magnitude is ever looked at: 0.97 and 97 are told apart by who sent them
//! ([`FRACTION`]), not by their size.

/// How a value of a sender's unit becomes one of ours: `(value − minus) × times ÷ over`.
///
/// Three numbers instead of a factor, so that the table holds the numbers of the definitions (4.184 J in a
/// calorie, 32 °F at the freezing point) and not their rounded reciprocals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversion {
    minus: f64,
    times: f64,
    over: f64,
}

/// The value as it is.
pub const SAME: Conversion = Conversion { minus: 0.0, times: 1.0, over: 1.0 };

/// A fraction of one as per cent: what `%` means to HealthKit (0.97 is 97 %), and to nobody else that we know.
pub const FRACTION: Conversion = times(100.0);

const fn times(times: f64) -> Conversion {
    Conversion { times, ..SAME }
}

const fn over(over: f64) -> Conversion {
    Conversion { over, ..SAME }
}

impl Conversion {
    /// The value in our unit, to nine decimals where it had to be computed: 0.57 is 57 %, and not
    /// 56.99999999999999 %, which a threshold at 57 would tell apart. No metric means anything below that.
    #[must_use]
    pub fn apply(self, value: f64) -> f64 {
        if self == SAME {
            return value;
        }
        let exact = (value - self.minus) * self.times / self.over;
        let whole = (exact * 1e9).round();
        // Beyond 2^53 there are no nine decimals left to round to.
        if whole.abs() < 9.0e15 { whole / 1e9 } else { exact }
    }
}

/// Our unit (UCUM), the sender's spelling, the conversion. Sources: `vendors.md` §4.6; exact by definition are
/// the mile, foot, inch, pound and stone (international yard and pound, 1959) and the thermochemical calorie.
static TABLE: &[(&str, &str, Conversion)] = &[
    ("/min", "count/min", SAME),
    ("/min", "bpm", SAME),
    ("/min", "count/s", times(60.0)),
    ("ms", "ms", SAME),
    ("ms", "s", times(1000.0)),
    ("Cel", "degC", SAME),
    ("Cel", "degF", Conversion { minus: 32.0, times: 1.0, over: 1.8 }),
    ("Cel", "K", Conversion { minus: 273.15, times: 1.0, over: 1.0 }),
    ("{steps}", "count", SAME),
    ("{count}", "count", SAME),
    ("{score}", "count", SAME),
    ("m", "m", SAME),
    ("m", "km", times(1000.0)),
    ("m", "mi", times(1609.344)),
    ("m", "ft", times(0.3048)),
    ("kcal", "kcal", SAME),
    ("kcal", "Cal", SAME),
    ("kcal", "kJ", over(4.184)),
    ("kcal", "cal", over(1000.0)),
    ("s", "s", SAME),
    ("s", "min", times(60.0)),
    ("s", "hr", times(3600.0)),
    ("min", "min", SAME),
    ("min", "s", over(60.0)),
    ("min", "hr", times(60.0)),
    ("kg", "kg", SAME),
    ("kg", "g", over(1000.0)),
    ("kg", "lb", times(0.453_592_37)),
    ("kg", "st", times(6.350_293_18)),
    ("cm", "cm", SAME),
    ("cm", "m", times(100.0)),
    ("cm", "in", times(2.54)),
    ("cm", "ft", times(30.48)),
    ("kg/m2", "count", SAME),
    ("kg/m2", "kg/m²", SAME),
    ("kg/m2", "kg/m^2", SAME),
    ("mm[Hg]", "mmHg", SAME),
    ("mm[Hg]", "kPa", times(7.500_62)),
    ("mg/dL", "mg/dL", SAME),
    // The molar mass of glucose stands in the unit; how many of its digits are printed depends on the system.
    ("mg/dL", "mmol<180.1558800000541>/L", times(18.0156)),
    ("mg/dL", "mmol<180.15588000005408>/L", times(18.0156)),
    ("mg/dL", "mmol<180.15588>/L", times(18.0156)),
    ("mg/dL", "mmol/L", times(18.0156)),
    ("mL/kg/min", "mL/kg*min", SAME),
    ("mL/kg/min", "mL/min·kg", SAME),
    ("mL/kg/min", "mL/(kg*min)", SAME),
    ("mL/kg/min", "ml/kg*min", SAME),
    ("mL/kg/min", "ml/min·kg", SAME),
    ("mL/kg/min", "ml/(kg*min)", SAME),
    ("mL/kg/min", "mL/(kg·min)", SAME),
    ("mL/kg/min", "ml/(kg·min)", SAME),
    ("dB", "dBASPL", SAME),
];

/// How a value in this spelling becomes one in `ours`, a unit of the vocabulary; nothing where it is not known.
#[must_use]
pub fn conversion(ours: &str, spelling: &str) -> Option<Conversion> {
    TABLE
        .iter()
        .find(|(unit, known, _)| *unit == ours && *known == spelling)
        .map(|(_, _, conversion)| *conversion)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(value: f64, spelling: &str, ours: &str) -> Option<f64> {
        conversion(ours, spelling).map(|conversion| conversion.apply(value))
    }

    #[test]
    fn values_of_the_definitions() {
        for (value, spelling, ours, becomes) in [
            (8.4, "kJ", "kcal", 2.007_648_184),
            (412.0, "Cal", "kcal", 412.0),
            (412.0, "cal", "kcal", 0.412),
            (1.2, "count/s", "/min", 72.0),
            (0.052_31, "s", "ms", 52.31),
            (98.6, "degF", "Cel", 37.0),
            (-40.0, "degF", "Cel", -40.0),
            (310.15, "K", "Cel", 37.0),
            (150.0, "lb", "kg", 68.038_855_5),
            (70_500.0, "g", "kg", 70.5),
            (11.0, "st", "kg", 69.853_224_98),
            (70.0, "in", "cm", 177.8),
            (5.5, "ft", "cm", 167.64),
            (1.82, "m", "cm", 182.0),
            (26.2, "mi", "m", 42_164.812_8),
            (16.0, "kPa", "mm[Hg]", 120.009_92),
            (5.5, "mmol<180.1558800000541>/L", "mg/dL", 99.0858),
            (99.0, "mg/dL", "mg/dL", 99.0),
            (30.0, "min", "s", 1800.0),
            (90.0, "s", "min", 1.5),
        ] {
            assert_eq!(convert(value, spelling, ours), Some(becomes), "{value} {spelling}");
        }
    }

    #[test]
    fn every_fraction_of_a_thousand_is_its_per_cent() {
        for thousandths in 0..=1000_i32 {
            let fraction = f64::from(thousandths) / 1000.0;
            assert_eq!(FRACTION.apply(fraction), f64::from(thousandths) / 10.0);
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        for (spelling, ours) in [
            ("stone", "kg"),
            ("LB", "kg"),
            ("", "kg"),
            ("kj", "kcal"),
            ("CAL", "kcal"),
            ("count", "/min"),
            ("mmol/L", "mm[Hg]"),
            ("mmol<18.0>/L", "mg/dL"),
            // A per cent is a fraction or it is not, and this table cannot know.
            ("%", "%"),
        ] {
            assert_eq!(convert(1.0, spelling, ours), None, "{spelling} for {ours}");
        }
    }

    #[test]
    fn no_pair_stands_twice() {
        let mut pairs: Vec<_> = TABLE.iter().map(|(ours, spelling, _)| (ours, spelling)).collect();
        pairs.sort_unstable();
        assert!(pairs.windows(2).all(|two| two[0] != two[1]));
    }
}
