//! WHOOP's names of sports, as ours: the closed vocabulary of the attribute `sport`.

/// Our name of a sport; `unlisted` for one that is not in the list, so that no text of a body gets out.
pub(super) fn name(theirs: &str) -> &'static str {
    let plain: String = theirs
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect();
    NAMES.iter().find(|known| **known == plain).copied().unwrap_or("unlisted")
}

/// Whether one gets on by walking or running in it, so that its distance is walked or run.
pub(super) fn is_on_foot(name: &str) -> bool {
    ["running", "walking", "hiking_rucking", "track___field", "track_and_field"].contains(&name)
}

/// Of the developers' pages; whatever is no letter or digit is an underscore.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "activity", "running", "cycling", "baseball", "basketball", "rowing", "fencing", "field_hockey", "football",
    "golf", "ice_hockey", "lacrosse", "rugby", "sailing", "skiing", "soccer", "softball", "squash", "swimming",
    "tennis", "track___field", "track_and_field", "volleyball", "water_polo", "wrestling", "boxing", "dance",
    "pilates", "yoga", "weightlifting", "cross_country_skiing", "functional_fitness", "duathlon", "gymnastics",
    "hiking_rucking", "horseback_riding", "kayaking", "martial_arts", "mountain_biking", "powerlifting",
    "rock_climbing", "paddleboarding", "triathlon", "walking", "surfing", "elliptical", "stairmaster", "meditation",
    "other", "diving", "ultimate", "climber", "jumping_rope", "australian_football", "skateboarding", "coaching",
    "ice_bath", "commuting", "gaming", "snowboarding", "motocross", "caddying", "obstacle_course_racing",
    "motor_racing", "hiit", "spin", "jiu_jitsu", "manual_labor", "cricket", "pickleball", "inline_skating",
    "box_fitness", "spikeball", "wheelchair_pushing", "paddle_tennis", "barre", "stage_performance",
    "high_stress_work", "parkour", "gaelic_football", "hurling_camogie", "circus_arts", "massage_therapy",
    "strength_trainer", "watching_sports", "assault_bike", "kickboxing", "stretching", "table_tennis", "badminton",
    "netball", "sauna", "disc_golf", "yard_work", "air_compression", "percussive_massage", "paintball",
    "ice_skating", "handball",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sport_is_one_of_the_list_or_unlisted() {
        for (theirs, ours) in [
            ("running", "running"),
            ("Hiking/Rucking", "hiking_rucking"),
            ("cross-country skiing", "cross_country_skiing"),
            ("underwater chess", "unlisted"),
            ("", "unlisted"),
        ] {
            assert_eq!(name(theirs), ours);
        }
        assert!(is_on_foot(name("Walking")) && !is_on_foot(name("Cycling")));
    }
}
