//! `arcmesh certs`: an authority, and certificates by which nodes know each other.

use crate::config::CertsConfig;
use crate::terminal;

/// Makes them and says where they lie.
pub(crate) fn run(config: &CertsConfig) -> anyhow::Result<()> {
    for path in tls::init(&config.folder, &config.nodes)? {
        terminal::say(&path.display().to_string())?;
    }
    Ok(())
}
