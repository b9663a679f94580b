//! The world of people and vendors: who lives how, what each vendor knows of it and says of it, and how it answers
//! when it is asked. Pure: time is an argument, and a seed gives all of it.
//!
//! It is the other side of the whole system, written from the vendors' contracts alone. Nothing here is derived from
//! how we read what vendors say, and no file of `vendors` is used but the recipes of signatures: a mistake made on
//! both sides alike would be seen by nobody.
//!
//! | module | what it has |
//! | --- | --- |
//! | [`person`] | lives: nights, naps, workouts, illness, journeys, changed clocks |
//! | [`player`] | what a vendor is to the world, and who is played |
//! | [`oura`], [`whoop`], … | a life as that vendor tells it |
//! | [`story`] | all records in all versions, and their announcements |
//! | [`truth`] | the ledger: the same in our vocabulary |
//! | [`subscription`] | what webhooks hang on: made by the app, ended by time and by faults |
//! | [`stage`] | the vendors while they are asked: tokens, quotas, faults |
//! | [`compare`] | what was published against the ledger |

pub mod compare;
pub mod dexcom;
pub mod dice;
pub mod fault;
pub mod garmin;
pub mod google;
pub mod grant;
pub mod healthkit;
pub mod oura;
pub mod person;
pub mod place;
pub mod player;
pub mod polar;
pub mod quota;
pub mod stage;
pub mod story;
pub mod subscription;
pub mod terra;
pub mod truth;
pub mod whoop;
pub mod withings;
