//! What the documentation shows is so: the guide's examples are run.

#[cfg(test)]
mod development;
#[cfg(test)]
mod guide;
#[cfg(test)]
mod markdown;
#[cfg(test)]
mod shape;
#[cfg(test)]
mod socket;
#[cfg(test)]
mod terminal;
