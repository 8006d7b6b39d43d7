//! What is wrong with a configuration file, and where.

use std::path::PathBuf;

/// A fault in `teleport.yaml` or in resource documents.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("open configuration {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML, has an unknown key, or a value of the wrong type.
    #[error("failed parsing the config file: {name}:{line}:{column}: {message}")]
    Parse {
        /// The file, as messages name it.
        name: String,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// Key, fault, and what was expected.
        message: String,
    },
    /// A value that reads well and cannot be used.
    #[error("failed parsing the config file: {name}:{line}:{column}: {key}: {message}")]
    Value {
        /// The file, as messages name it.
        name: String,
        /// Line of the value, or of the nearest key around it, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// The key with those around it, joined by dots.
        key: &'static str,
        /// Fault, and what was expected.
        message: String,
    },
    /// A resource document that cannot be read.
    #[error("{name}:{line}:{column}: {message}")]
    Document {
        /// The file, as messages name it.
        name: String,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// Key, fault, and what was expected.
        message: String,
    },
}
