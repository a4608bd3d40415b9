//! SQLite here; PostgreSQL in the tests of the stores.

use std::path::{Path, PathBuf};

use super::*;

const POOL: Pool = Pool {
    connections_max: 2,
    setup: &["PRAGMA journal_mode = WAL"],
};

const FIRST: &[&str] = &["CREATE TABLE things (name TEXT NOT NULL)"];
const SECOND: &[&str] = &["ALTER TABLE things ADD COLUMN size BIGINT"];

fn schema(migrations: &'static [&'static [&'static str]]) -> Schema {
    Schema {
        table: "things_schema",
        lock: 1,
        migrations,
    }
}

fn database(file: &Path, migrations: &'static [&'static [&'static str]]) -> Database {
    Database::sqlite(file, &POOL, schema(migrations)).unwrap()
}

#[tokio::test]
async fn a_schema_grows_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a folder?#.sqlite");
    let old = database(&file, &[FIRST]);
    let insert = "INSERT INTO things (name) VALUES ('a')";
    sqlx::query(insert)
        .execute(old.pool().await.unwrap())
        .await
        .unwrap();
    let new = database(&file, &[FIRST, SECOND]);
    let names = "SELECT COUNT(*) FROM things WHERE size IS NULL";
    let count: i64 = sqlx::query_scalar(names)
        .fetch_one(new.pool().await.unwrap())
        .await
        .unwrap();
    assert_eq!(count, 1);
    let again = database(&file, &[FIRST]);
    let error = again.pool().await.unwrap_err();
    assert!(matches!(error, DatabaseError::Newer { found: 2, known: 1 }));
}

#[tokio::test]
async fn a_relative_path_starts_at_the_working_folder() {
    let folder = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.ancestors().skip(1).map(|_| "..").collect();
    let relative = up.join(folder.path().strip_prefix("/").unwrap());
    let made = database(&relative.join("a.sqlite"), &[FIRST]);
    made.pool().await.unwrap();
    assert!(folder.path().join("a.sqlite").exists());
}

#[tokio::test]
async fn a_reader_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.sqlite");
    let reader = || Database::sqlite_existing(&file, &POOL, schema(&[FIRST])).unwrap();
    assert!(matches!(
        reader().pool_as_it_is().await,
        Err(DatabaseError::Sql(_))
    ));
    assert!(!file.exists());
    database(&file, &[]).pool().await.unwrap();
    assert!(matches!(
        reader().pool_as_it_is().await,
        Err(DatabaseError::NotReady { known: 1, .. })
    ));
    database(&file, &[FIRST]).pool().await.unwrap();
    reader().pool_as_it_is().await.unwrap();
}

#[test]
fn a_place_that_makes_no_sense_is_refused() {
    let schema = schema(&[]);
    for url in ["here", "mysql://example.org/a"] {
        let config = PostgresConfig {
            url: url.into(),
            password: None,
        };
        let error = Database::postgres(&config, &POOL, schema).unwrap_err();
        assert!(error.to_string().contains("write postgres://"), "{error}");
    }
}
