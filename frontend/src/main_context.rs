//! The build context as vertices.

use std::collections::BTreeMap;

use llb::op::{CopyAction, FileAction, FileActionKind, FileInput, FileOp, SourceOp};
use llb::url::redacted;
use llb::{Definition, Edge, Op, VertexMetadata};

use crate::error::ErrorKind;
use crate::local::{self, Locals};
use crate::options::{MainContext, Options};
use crate::remote::{git, http};

/// The definition of the build context alone, so that a Dockerfile can be read from it; `None` when it is empty.
///
/// # Errors
/// When it is a repository whose URL is wrong.
pub fn main_context(options: &Options) -> Result<Option<Definition>, ErrorKind> {
    let mut definition = Definition::default();
    definition.result = add(options, &Locals::collecting(), &mut definition)?;
    Ok(definition.result.map(|_| definition))
}

/// Adds the build context to a definition; `None` is an empty tree.
///
/// # Errors
/// When it is a repository whose URL is wrong.
pub(crate) fn add(
    options: &Options,
    locals: &Locals,
    definition: &mut Definition,
) -> Result<Option<Edge>, ErrorKind> {
    let load = |definition: &mut Definition, source, name: String| {
        let metadata = VertexMetadata { name, ..VertexMetadata::default() };
        Edge { vertex: definition.add(Op::Source(source), Vec::new(), None, metadata), output: 0 }
    };
    let file = |url: &str| http::source(url, MainContext::FILE_NAME, None);
    let remote = || "[internal] load remote build context".to_owned();
    Ok(match &options.context {
        MainContext::Empty => None,
        MainContext::Local => {
            let name = "[internal] load build context".to_owned();
            Some(load(definition, locals.source(local::CONTEXT), name))
        }
        MainContext::Git { url } => {
            let source = git::main_context(url, options)?;
            Some(load(definition, source, format!("[internal] load git source {}", redacted(url))))
        }
        MainContext::HttpFile { url } => Some(load(definition, file(url), remote())),
        MainContext::HttpArchive { url } => {
            let archive = load(definition, file(url), remote());
            Some(unpacked(definition, archive))
        }
        MainContext::Archive { digest } => {
            let attrs = BTreeMap::from([("archive.digest".to_owned(), digest.to_string())]);
            let identifier = format!("archive://{}", local::CONTEXT);
            let archive = load(definition, SourceOp { identifier, attrs }, remote());
            Some(unpacked(definition, archive))
        }
    })
}

/// What is in the archive that `archive` has, with owners as the archive has them.
fn unpacked(definition: &mut Definition, archive: Edge) -> Edge {
    let action = CopyAction {
        src: format!("/{}", MainContext::FILE_NAME),
        dest: "/".to_owned(),
        owner: None,
        mode: -1,
        mode_str: String::new(),
        follow_symlink: false,
        dir_copy_contents: false,
        attempt_unpack: true,
        create_dest_path: false,
        allow_wildcard: false,
        allow_empty_wildcard: false,
        timestamp: -1,
        include_patterns: Vec::new(),
        exclude_patterns: Vec::new(),
        always_replace_existing_dest_paths: false,
        required_paths: Vec::new(),
    };
    let actions = vec![FileAction {
        input: FileInput::Scratch,
        secondary_input: FileInput::Input(0),
        output: Some(0),
        kind: FileActionKind::Copy(Box::new(action)),
    }];
    let name = "[internal] unpack build context".to_owned();
    let metadata = VertexMetadata { name, ..VertexMetadata::default() };
    let vertex = definition.add(Op::File(FileOp { actions }), vec![archive], None, metadata);
    Edge { vertex, output: 0 }
}
