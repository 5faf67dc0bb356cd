/// How a peer's memory regions are laid into a window.
public enum PlacementRule: String, Sendable, CaseIterable {
    /// One after the other: any number of files; needs a device that maps them itself (in process).
    case packed
}
