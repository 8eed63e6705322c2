//! Heredoc words.

/// Returns whether the text is one heredoc word, such as `<<-EOF`.
pub(crate) fn is_heredoc_word(text: &str) -> bool {
    text.starts_with("<<")
}
