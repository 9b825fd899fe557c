//! `confab bench`: what confab costs and how fast it is.

pub(crate) use confab_bench::BenchArgs;

/// The flags of each scenario stand under one heading.
pub(crate) fn under_a_heading(bench: clap::Command) -> clap::Command {
    let heading = |flag: clap::Arg| flag.help_heading("Measurement");
    bench
        .mut_args(heading)
        .mut_subcommands(|scenario| scenario.mut_args(heading))
}

pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    Ok(confab_bench::run(args).await?)
}
