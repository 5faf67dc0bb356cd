/// Which admin dialects a management device serves, and on which queues. One device has one
/// personality for its life; formats are never guessed from bytes (AVQ-D-901).
public enum Personality: String, Sendable, CaseIterable {
    /// All dialects side by side, each negotiated by its own feature bit (AVQ-D-903).
    case multi
    /// Only the standard's group administration commands.
    case std
    /// Only the class/command proposal, under feature bit 40.
    case rfcG = "rfc-g"
    /// Only the virtual-device proposal, under feature bit 40.
    case rfcW = "rfc-w"
}
