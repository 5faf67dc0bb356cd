internal import CSystemShims
internal import Glibc

/// A kernel thread of our own, joined before this object goes.
public final class PollingThread: @unchecked Sendable {
    private var handle = pthread_t()
    private var isJoined = false

    private final class Start {
        let name: String
        let body: @Sendable () -> Void

        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Starts a thread that runs `body` once. `body` must watch a stop flag of its own.
    public init(name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
        let start = unsafe Unmanaged.passRetained(Start(name: name, body: body))
        let status = unsafe pthread_create(
            &handle,
            nil,
            { raw in
                guard let raw = unsafe raw else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(raw).takeRetainedValue()
                _ = unsafe shim_name_thread(start.name)
                start.body()
                return nil
            },
            unsafe start.toOpaque()
        )
        if status != 0 {
            unsafe start.release()
            isJoined = true
            throw SystemError("start the thread \(name)", Errno(status))
        }
    }

    deinit {
        join()
    }

    /// Waits until the body has returned.
    public func join() {
        guard !isJoined else { return }
        isJoined = true
        _ = pthread_join(handle, nil)
    }
}
