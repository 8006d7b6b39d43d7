//! Every default in one commented file, compiled in, so that the manual cannot be wrong.

/// A commented `teleport.yaml` with every key and its default.
pub fn default_file() -> &'static str {
    include_str!("default.yaml")
}

#[cfg(test)]
mod tests {
    use crate::TeleportConfig;

    #[test]
    fn the_commented_file_says_what_an_empty_one_means() {
        let written = TeleportConfig::parse(super::default_file(), "default.yaml").unwrap();
        // A port of SSH's own is what the guides use; a file of this version opens it only where it is named.
        let brief = "version: v3\nproxy_service:\n  listen_addr: 0.0.0.0:3023\n";
        let empty = TeleportConfig::parse(brief, "empty.yaml").unwrap();
        assert_eq!(format!("{written:?}"), format!("{empty:?}"));
    }
}
