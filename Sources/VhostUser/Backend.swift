/// A vhost-user back-end at one socket path.
public final class Backend {
    /// Where it listens.
    public let path: String

    init(path: String) {
        self.path = path
    }
}
