//! Terra's numbers of activity types, as names: the closed vocabulary of the attribute `sport`.

use crate::vendors::terra::record::name_of;

/// The type's name; `unlisted` for one that Terra has added since.
pub(super) fn name(kind: i64) -> &'static str {
    name_of(kind, NAMES)
}

/// Whether one gets on by walking or running in it, so that its distance is walked or run.
pub(super) fn is_on_foot(kind: i64) -> bool {
    ON_FOOT.contains(&name(kind))
}

const ON_FOOT: &[&str] = &[
    "walking",
    "running",
    "hiking",
    "jogging",
    "running_on_sand",
    "treadmill_running",
    "treadmill",
    "walking_for_fitness",
    "nordic_walking",
    "treadmill_walking",
    "walking_with_stroller",
    "indoor_running",
    "trail_running",
];

#[rustfmt::skip]
const NAMES: &[(i64, &str)] = &[
    (0, "in_vehicle"), (1, "biking"), (3, "still"), (4, "unknown"), (5, "tilting"),
    (7, "walking"), (8, "running"), (9, "aerobics"), (10, "badminton"), (11, "baseball"),
    (12, "basketball"), (13, "biathlon"), (14, "hand_biking"), (15, "mountain_biking"),
    (16, "road_biking"), (17, "spinning"), (18, "stationary_biking"), (19, "utility_biking"),
    (20, "boxing"), (21, "calisthenics"), (22, "circuit_training"), (23, "cricket"),
    (24, "dancing"), (25, "elliptical"), (26, "fencing"), (27, "american_football"),
    (28, "australian_football"), (29, "english_football"), (30, "frisbee"), (31, "gardening"),
    (32, "golf"), (33, "gymnastics"), (34, "handball"), (35, "hiking"), (36, "hockey"),
    (37, "horseback_riding"), (38, "housework"), (39, "jumping_rope"), (40, "kayaking"),
    (41, "kettlebell_training"), (42, "kickboxing"), (43, "kitesurfing"), (44, "martial_arts"),
    (45, "meditation"), (46, "mixed_martial_arts"), (47, "p90x_exercises"), (48, "paragliding"),
    (49, "pilates"), (50, "polo"), (51, "racquetball"), (52, "rock_climbing"), (53, "rowing"),
    (54, "rowing_machine"), (55, "rugby"), (56, "jogging"), (57, "running_on_sand"),
    (58, "treadmill_running"), (59, "sailing"), (60, "scuba_diving"), (61, "skateboarding"),
    (62, "skating"), (63, "cross_skating"), (64, "indoor_rollerblading"), (65, "skiing"),
    (66, "back_country_skiing"), (67, "cross_country_skiing"), (68, "downhill_skiing"),
    (69, "kite_skiing"), (70, "roller_skiing"), (71, "sledding"), (73, "snowboarding"),
    (74, "snowmobile"), (75, "snowshoeing"), (76, "squash"), (77, "stair_climbing"),
    (78, "stair_climbing_machine"), (79, "stand_up_paddleboarding"), (80, "strength_training"),
    (81, "surfing"), (82, "swimming"), (83, "swimming_in_pool"), (84, "open_water_swimming"),
    (85, "table_tennis"), (86, "team_sports"), (87, "tennis"), (88, "treadmill"),
    (89, "volleyball"), (90, "beach_volleyball"), (91, "indoor_volleyball"), (92, "wakeboarding"),
    (93, "walking_for_fitness"), (94, "nordic_walking"), (95, "treadmill_walking"),
    (96, "water_polo"), (97, "weightlifting"), (98, "wheelchair"), (99, "windsurfing"),
    (100, "yoga"), (101, "zumba"), (102, "diving"), (103, "ergometer"), (104, "ice_skating"),
    (105, "indoor_skating"), (106, "curling"), (108, "other"), (113, "crossfit"), (114, "hiit"),
    (115, "interval_training"), (116, "walking_with_stroller"), (117, "elevator"),
    (118, "escalator"), (119, "archery"), (120, "softball"), (122, "guided_breathing"),
    (123, "cardio_training"), (124, "lacrosse"), (125, "stretching"), (126, "triathlon"),
    (127, "inline_skating"), (128, "sky_diving"), (129, "paddling"), (130, "mountaineering"),
    (131, "fishing"), (132, "water_skiing"), (133, "indoor_running"), (134, "padel_tennis"),
    (135, "driving"), (136, "off_road_driving"), (137, "motorbiking"), (138, "motor_racing"),
    (139, "enduro"), (140, "canoeing"), (141, "orienteering"), (142, "hang_gliding"),
    (143, "flying"), (144, "hot_air_ballooning"), (145, "jet_skiing"), (146, "power_boating"),
    (147, "gaelic_football"), (148, "hurling"), (149, "trail_running"), (150, "gravel_cycling"),
    (151, "multisport"), (152, "e_biking"), (153, "e_mountain_biking"), (154, "physical_therapy"),
];
