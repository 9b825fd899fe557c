//! Waiting for a point in time more finely than the runtime's clock, which goes by milliseconds: at a thousand messages a second its
//! lateness would be most of what is measured.

/// Wakes one task at a time.
#[derive(Debug)]
pub(crate) struct Timer {
    #[cfg(target_os = "linux")]
    fd: tokio::io::unix::AsyncFd<linux::Fd>,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{AsFd as _, AsRawFd, RawFd};

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    use super::Timer;
    use crate::Error;

    #[derive(Debug)]
    pub(super) struct Fd(TimerFd);

    impl AsRawFd for Fd {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_fd().as_raw_fd()
        }
    }

    impl Timer {
        pub(crate) fn new() -> Result<Self, Error> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let fd = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(std::io::Error::from);
            #[expect(
                deprecated,
                reason = "the other way is unsafe code, for what does not own its descriptor, as this does"
            )]
            let fd = fd.and_then(|fd| AsyncFd::new(Fd(fd)));
            let fd = fd.map_err(Error::io("make a timer"))?;
            Ok(Self { fd })
        }

        /// Waits until then; not at all where that is past.
        pub(crate) async fn until(&self, at: Instant) -> Result<(), Error> {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let once = Expiration::OneShot(TimeSpec::from_duration(left));
            let set = self.fd.get_ref().0.set(once, TimerSetTimeFlags::empty());
            set.map_err(|error| Error::io("set a timer")(error.into()))?;
            loop {
                let ready = self.fd.readable().await;
                let mut ready = ready.map_err(Error::io("wait for a timer"))?;
                let waited = ready.try_io(|fd| fd.get_ref().0.wait().map_err(Into::into));
                if let Ok(waited) = waited {
                    return waited.map_err(Error::io("read a timer"));
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub(crate) fn new() -> Result<Self, crate::Error> {
        Ok(Self {})
    }

    /// Waits until then; not at all where that is past.
    pub(crate) async fn until(&self, at: tokio::time::Instant) -> Result<(), crate::Error> {
        tokio::time::sleep_until(at).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn timer_never_wakes_early_and_is_reusable() {
        let timer = Timer::new().unwrap();
        for micros in [0, 300, 1700] {
            let at = Instant::now() + Duration::from_micros(micros);
            timer.until(at).await.unwrap();
            assert!(Instant::now() >= at);
        }
    }
}
