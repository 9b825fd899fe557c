//! Builds the crate anew when a migration is added: `sqlx::migrate!` reads them while it compiles, and cargo does not know.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
}
