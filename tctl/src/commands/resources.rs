//! `tctl get`, `create`, `edit`, `rm`: resources as YAML documents.

use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use shared_cli::{CliError, ExitCode, Format, print_structured, printable};
use shared_types::{Resource, ResourceKind, resource::ResourceRef};

use crate::connect::Connection;

/// Largest document that is read.
const LARGEST: u64 = 8 * 1024 * 1024;

/// Flags of `tctl get`.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// KIND or KIND/NAME, separated by commas, or `all`
    what: String,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value = "yaml")]
    format: Format,
}

/// Flags of `tctl create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// YAML file; standard input when left out or `-`
    file: Option<PathBuf>,
    /// Replace what exists
    #[arg(short = 'f', long)]
    force: bool,
    /// Replace what comes from the configuration file
    #[arg(long, hide = true)]
    confirm: bool,
}

/// Flags of `tctl edit`.
#[derive(Debug, clap::Args)]
pub struct EditArgs {
    /// KIND/NAME
    what: String,
}

/// Flags of `tctl rm`.
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// KIND/NAME
    what: String,
}

/// A reference that names one resource.
fn named(text: &str) -> Result<(ResourceKind, String), CliError> {
    let reference: ResourceRef =
        text.parse().map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
    match reference.name.or_else(|| reference.kind.singleton().map(str::to_owned)) {
        Some(name) => Ok((reference.kind, name)),
        None => Err(CliError::usage(format!("{}: a name is missing", reference.kind))
            .hint(format!("{}/NAME", reference.kind))),
    }
}

/// `tctl get`.
pub async fn get(connection: &Connection, args: &GetArgs) -> Result<ExitCode, CliError> {
    let references = ResourceRef::parse_list(&args.what)
        .map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
    let mut found = Vec::new();
    for ResourceRef { kind, name } in references {
        match name.or_else(|| kind.singleton().map(str::to_owned)) {
            Some(name) => {
                found.push(
                    connection.api.get_resource(kind, &name).await.map_err(Connection::error)?,
                );
            }
            None => {
                found.extend(connection.api.list_resources(kind).await.map_err(Connection::error)?);
            }
        }
    }
    match args.format {
        Format::Json => print_structured(&found, Format::Json)?,
        Format::Yaml => {
            for (at, resource) in found.iter().enumerate() {
                if at > 0 {
                    println!("---");
                }
                print_structured(resource, Format::Yaml)?;
            }
        }
        Format::Text => {
            for resource in &found {
                println!(
                    "{}",
                    printable(resource["metadata"]["name"].as_str().unwrap_or_default())
                );
            }
        }
    }
    Ok(ExitCode::Done)
}

/// `tctl create`.
pub async fn create(connection: &Connection, args: &CreateArgs) -> Result<ExitCode, CliError> {
    let (name, text) = read(args.file.as_deref())?;
    let documents = documents(&name, &text)?;
    if documents.is_empty() {
        return Err(CliError::usage(format!("{name}: no resource found")));
    }
    for document in documents {
        put(connection, &document, args.force || args.confirm).await?;
    }
    Ok(ExitCode::Done)
}

async fn put(connection: &Connection, resource: &Resource, force: bool) -> Result<(), CliError> {
    let reply = connection.api.create_resource(resource, force).await.map_err(Connection::error)?;
    let done = if reply.created { "created" } else { "updated" };
    println!("{} {:?} has been {done}", resource.kind(), printable(resource.name()));
    Ok(())
}

fn read(file: Option<&std::path::Path>) -> Result<(String, String), CliError> {
    let mut text = String::new();
    match file {
        Some(path) if path.as_os_str() != "-" => {
            let name = path.display().to_string();
            let file = std::fs::File::open(path)
                .map_err(|error| CliError::wrap(format!("open {name}"), &error))?;
            file.take(LARGEST)
                .read_to_string(&mut text)
                .map_err(|error| CliError::wrap(format!("read {name}"), &error))?;
            Ok((name, text))
        }
        _ => {
            std::io::stdin().lock().take(LARGEST).read_to_string(&mut text)?;
            Ok(("standard input".to_owned(), text))
        }
    }
}

/// The resources in `text`.
fn documents(name: &str, text: &str) -> Result<Vec<Resource>, CliError> {
    shared_config::read_resources(text, name)
        .map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))
}

/// `tctl edit`.
pub async fn edit(connection: &Connection, args: &EditArgs) -> Result<ExitCode, CliError> {
    let (kind, name) = named(&args.what)?;
    let before = connection.api.get_resource(kind, &name).await.map_err(Connection::error)?;
    let mut text = Vec::new();
    shared_cli::write_structured(&before, Format::Yaml, &mut text)?;
    let file = private_file(&text)?;
    let editor = ["TELEPORT_EDITOR", "VISUAL", "EDITOR"]
        .iter()
        .find_map(|key| std::env::var(key).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "vi".to_owned());
    // The variable may hold arguments, as with other programs that start an editor.
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program)
        .args(words)
        .arg(&file.0)
        .status()
        .map_err(|error| CliError::wrap(format!("start the editor {program:?}"), &error))?;
    if !status.success() {
        return Err(CliError::new(format!("edit canceled, the editor ended with {status}")));
    }
    let after = std::fs::read(&file.0)?;
    if after == text {
        eprintln!("edit canceled, no changes made");
        return Ok(ExitCode::Done);
    }
    let shown = file.0.display().to_string();
    let keep = |error: CliError| {
        // The text a person wrote is not thrown away with the error.
        let kept = file.0.with_extension("rejected.yaml");
        match std::fs::copy(&file.0, &kept) {
            Ok(_) => error.hint(format!("your text is kept in {}", kept.display())),
            Err(_) => error,
        }
    };
    let documents = documents(&shown, &String::from_utf8_lossy(&after)).map_err(keep)?;
    let [document] = documents.as_slice() else {
        return Err(keep(CliError::usage("one document is expected")));
    };
    if document.name() != name || document.kind() != kind {
        return Err(keep(CliError::usage("kind and name cannot be changed by an edit")));
    }
    // A change, by its own right, and only of what was read: the document carries its revision.
    connection
        .api
        .update_resource(document)
        .await
        .map_err(|error| keep(Connection::error(error)))?;
    println!("{kind} {:?} has been updated", printable(&name));
    Ok(ExitCode::Done)
}

/// A file that only its owner reads and that goes with its guard.
struct PrivateFile(PathBuf);

impl Drop for PrivateFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

fn private_file(content: &[u8]) -> Result<PrivateFile, CliError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = std::env::temp_dir().join(format!("tctl-{}.yaml", uuid::Uuid::new_v4()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
    let guard = PrivateFile(path);
    file.write_all(content)?;
    Ok(guard)
}

/// `tctl rm`.
pub async fn rm(connection: &Connection, args: &RmArgs) -> Result<ExitCode, CliError> {
    let (kind, name) = named(&args.what)?;
    connection.api.delete_resource(kind, &name).await.map_err(Connection::error)?;
    println!("{kind} {:?} has been deleted", printable(&name));
    Ok(ExitCode::Done)
}
