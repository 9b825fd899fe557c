//! How connections are made: as whom is read again for each.

use std::path::{Path, PathBuf};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};

use crate::settings::DatabaseSettings;

/// How a connection is made.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    options: PgConnectOptions,
    /// The user's name, instead of that of the options.
    user: Option<PathBuf>,
    /// The password, likewise.
    password: Option<PathBuf>,
}

impl Connector {
    /// By `options`, but for what `settings` name files for.
    pub(crate) fn new(options: PgConnectOptions, settings: &DatabaseSettings) -> Self {
        Self {
            options,
            user: settings.database_user_file.clone(),
            password: settings.database_password_file.clone(),
        }
    }

    /// The same with more settings for the session.
    pub(crate) fn with(
        mut self,
        settings: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) -> Self {
        self.options = self.options.options(settings);
        self
    }

    /// Host and port of the server.
    pub(crate) fn address(&self) -> (&str, u16) {
        (self.options.get_host(), self.options.get_port())
    }

    /// The options of a connection that is made now.
    ///
    /// # Errors
    /// [`sqlx::Error::Configuration`] when a file cannot be read, or says nothing.
    pub(crate) async fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let mut options = self.options.clone();
        if let Some(path) = &self.user {
            options = options.username(&line(path).await?);
        }
        if let Some(path) = &self.password {
            options = options.password(&line(path).await?);
        }
        Ok(options)
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`Self::options`], and when the server is away or refuses.
    pub(crate) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&self.options().await?).await
    }
}

/// Without files.
impl From<PgConnectOptions> for Connector {
    fn from(options: PgConnectOptions) -> Self {
        Self {
            options,
            user: None,
            password: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
}

/// A file's text without the line's end behind it, which editors and secret stores put there.
async fn line(path: &Path) -> Result<String, sqlx::Error> {
    let read = tokio::fs::read_to_string(path).await;
    let text = read.map_err(|error| FileError::Unreadable {
        path: path.to_owned(),
        error,
    });
    let text = text.map_err(sqlx::Error::config)?;
    let line = text.trim_end_matches(['\r', '\n']);
    match line.is_empty() {
        true => Err(sqlx::Error::config(FileError::Empty(path.to_owned()))),
        false => Ok(line.to_owned()),
    }
}
