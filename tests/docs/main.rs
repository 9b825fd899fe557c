//! Tests of the documentation: the guide's examples run, and the protocol's tables match the service.

#[cfg(test)]
mod citations;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod development;
#[cfg(test)]
mod glossary;
#[cfg(test)]
mod guide;
#[cfg(test)]
mod links;
#[cfg(test)]
mod markdown;
#[cfg(test)]
mod names;
#[cfg(test)]
mod prose;
#[cfg(test)]
mod shape;
#[cfg(test)]
mod socket;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod terminal;
