//! `confab bench`: what confab costs and how fast it is.

pub(crate) use confab_bench::Args;

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    Ok(confab_bench::run(args).await?)
}
