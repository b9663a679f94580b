//! The schema, forwards and back, on real Postgres.

use biometric_bridge::commands;
use biometric_bridge::error::Kind;
use biometric_bridge::postgres::migrate::{self, MIGRATIONS, State};

use crate::database::Database;

async fn tables(world: &Database) -> Vec<String> {
    let sql = "SELECT tablename FROM pg_tables WHERE schemaname = $1 \
               AND tablename <> 'schema_migrations' ORDER BY 1";
    let rows = world.client().await.query(sql, &[&world.schema]).await.expect("tables");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn up_and_down_and_up_again() {
    let world = Database::empty().await;
    let settings = world.settings();
    let mut printed = Vec::new();
    assert!(!commands::migrate::status(&settings, false, &mut printed).await.expect("status"));
    assert_eq!(tables(&world).await, [""; 0], "status writes nothing");
    let behind = migrate::check(&settings).await.expect_err("behind");
    assert_eq!(behind.kind, Kind::SchemaError);
    assert!(behind.to_string().contains("biometric-bridge migrate up"), "{behind}");
    assert_eq!(migrate::up(&settings).await.expect("up").len(), MIGRATIONS.len());
    let all = tables(&world).await;
    assert_eq!(migrate::up(&settings).await, Ok(Vec::new()), "twice is once");
    assert_eq!(migrate::check(&settings).await, Ok(()));
    let mut printed = Vec::new();
    commands::migrate::down(&settings, 1, true, &mut printed).await.expect("down");
    let text = String::from_utf8(printed).expect("text");
    let last = format!("\"number\":{},\"state\":\"pending\"", MIGRATIONS.len());
    assert!(text.contains(&last), "{text}");
    assert!(migrate::check(&settings).await.is_err());
    migrate::down(&settings, 99).await.expect("all the way");
    assert_eq!(tables(&world).await, [""; 0], "each way back takes away what its way made");
    let mut printed = Vec::new();
    commands::migrate::up(&settings, false, &mut printed).await.expect("up");
    assert!(printed.starts_with(b"applied  0001_decide\n"));
    assert_eq!(tables(&world).await, all);
}

#[tokio::test]
async fn two_that_start_together_do_it_once() {
    let world = Database::empty().await;
    let settings = world.settings();
    let (one, two) = tokio::join!(migrate::up(&settings), migrate::up(&settings));
    let (one, two) = (one.expect("up"), two.expect("up"));
    assert_eq!(one.len() + two.len(), MIGRATIONS.len(), "{one:?} {two:?}");
}

#[tokio::test]
async fn an_edited_file_and_a_newer_database_are_refused() {
    let world = Database::migrated().await;
    let settings = world.settings();
    world.sql("UPDATE schema_migrations SET checksum = 'x' WHERE number = 2").await;
    for refused in [
        migrate::up(&settings).await.map(|_| ()),
        migrate::down(&settings, 1).await.map(|_| ()),
        migrate::check(&settings).await,
    ] {
        let error = refused.expect_err("refused");
        assert_eq!(error.code, "0002_normalise");
        assert!(error.to_string().contains("edited"), "{error}");
    }
    let steps = migrate::status(&settings).await.expect("status");
    assert_eq!(steps[1].state, State::Edited);
    world.sql("DELETE FROM schema_migrations WHERE number = 2").await;
    world.sql("INSERT INTO schema_migrations VALUES (99, 'later', 'x')").await;
    let error = migrate::check(&settings).await.expect_err("refused");
    assert!(error.to_string().contains("newer"), "{error}");
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_behind() {
    let world = Database::empty().await;
    // In the way of the second step.
    world.sql("CREATE TABLE held (x int)").await;
    let error = migrate::up(&world.settings()).await.expect_err("fails");
    assert_eq!(error.code, "0002_normalise, 42P07");
    let all = tables(&world).await;
    assert!(all.contains(&"revisions".to_owned()), "the first step stands");
    assert!(!all.contains(&"connections".to_owned()), "of the second there is nothing");
    world.sql("DROP TABLE held").await;
    assert_eq!(migrate::up(&world.settings()).await.expect("goes on").len(), MIGRATIONS.len() - 1);
}
