//! Whatever is killed, cut, stopped or erased while many clients talk, come and go: nobody misses anything it is owed, and
//! everything that was answered is stored once (promise 4). The history checker says so.

use crate::history::{Load, Shape};
use crate::support::{Cluster, Setup, soak};

mod workers;
