/// Takes the connections of a listener, on the thread of an event loop.
///
/// Without a free descriptor a connection stays in the queue and the socket stays readable: looking
/// away for a while is what keeps the loop from spinning (HI-I19). What was accepted before goes on.
public final class Acceptor {
    /// Where connections come from.
    struct Source {
        let descriptor: FileDescriptor
        let accept: () throws(SystemError) -> UnixSocket?
    }

    private let loop: EventLoop
    private let leastPause: UInt64
    private let onConnection: (UnixSocket) -> Void
    private let onFailure: (SystemError) -> Void
    private var source: Source?
    private var watch: EventLoop.Source?
    private var timer: EventLoop.Source?
    /// Milliseconds that it looks away after the next failure.
    private(set) var pause: UInt64

    /// Most connections that one turn takes from the queue.
    private static let acceptsPerTurn = 16
    /// How many times the first pause later ones become, while nothing is accepted.
    private static let longestPause: UInt64 = 10

    /// Accepts from now on. `onConnection` gets each connection, `onFailure` each reason for a pause of
    /// `pause` milliseconds, and of twice as many after the next, up to ten times as many.
    public convenience init(
        _ listener: UnixListener,
        loop: EventLoop,
        pause: UInt64,
        onConnection: @escaping (UnixSocket) -> Void,
        onFailure: @escaping (SystemError) -> Void
    ) throws(SystemError) {
        try self.init(
            Source(descriptor: listener.descriptor) { () throws(SystemError) in
                try listener.accept()
            },
            loop: loop,
            pause: pause,
            onConnection: onConnection,
            onFailure: onFailure
        )
    }

    init(
        _ source: Source,
        loop: EventLoop,
        pause: UInt64,
        onConnection: @escaping (UnixSocket) -> Void,
        onFailure: @escaping (SystemError) -> Void
    ) throws(SystemError) {
        self.loop = loop
        self.source = source
        self.pause = pause
        leastPause = pause
        self.onConnection = onConnection
        self.onFailure = onFailure
        try arm()
    }

    deinit {
        close()
    }

    /// True until `close`.
    public var isOpen: Bool { source != nil }

    /// Takes no more connections, and lets go of the listener.
    public func close() {
        if let watch { loop.remove(watch) }
        if let timer { loop.remove(timer) }
        watch = nil
        timer = nil
        source = nil
    }

    private func arm() throws(SystemError) {
        guard let source else { return }
        watch = try loop.watch(source.descriptor) { [weak self] in self?.accept() }
    }

    private func accept() {
        for _ in 0..<Self.acceptsPerTurn {
            do throws(SystemError) {
                guard let socket = try source?.accept() else { return }
                pause = leastPause
                onConnection(socket)
            } catch {
                return rest(error)
            }
        }
    }

    private func rest(_ error: SystemError) {
        if let watch { loop.remove(watch) }
        watch = nil
        timer = loop.after(milliseconds: pause) { [weak self] in self?.wake() }
        pause = min(pause * 2, leastPause * Self.longestPause)
        onFailure(error)
    }

    private func wake() {
        timer = nil
        do throws(SystemError) {
            try arm()
        } catch {
            rest(error)
        }
    }
}
