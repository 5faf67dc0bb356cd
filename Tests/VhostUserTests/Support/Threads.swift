import Glibc
import HostSystem
import Synchronization
import VirtioSpec

@testable import VhostUser

/// A back-end on a thread of its own, for a front-end that blocks.
final class ServingThread: Sendable {
    /// What its device has seen so far.
    struct Log: Sendable {
        var connectionCount = 0
        var snapshots: [PeerDescription] = []
        var ends: [DisconnectReason] = []
        var refusals: [Violation] = []
        var quiesceCount = 0
    }

    let path: String
    private let log = Mutex(Log())
    private let stop: EventFD
    private let thread = Mutex<PollingThread?>(nil)

    init(
        path: String = uniquePath(),
        offer: BackendOffer = BackendOffer(features: SessionRig.features),
        positions: [Int: UInt16] = [:]
    ) throws {
        self.path = path
        let stop = try EventFD()
        self.stop = stop
        let started = try EventFD()
        let running = try PollingThread(name: "back-end") { [self] in
            do {
                try serve(offer, positions, started)
            } catch {
                log.withLock { $0.refusals.append(Violation(.transfer, "\(error)")) }
                started.signal()
            }
        }
        thread.withLock { $0 = running }
        while started.drain() == 0 { usleep(200) }
    }

    private func serve(
        _ offer: BackendOffer,
        _ positions: [Int: UInt16],
        _ started: EventFD
    ) throws {
        let loop = try EventLoop()
        let device = Device(positions: positions) { [self] change in log.withLock { change(&$0) } }
        let backend = try Backend(path: path, loop: loop, offer: offer, delegate: device)
        try loop.watch(stop.descriptor) { loop.stop() }
        started.signal()
        try loop.run()
        backend.close()
    }

    /// What has happened so far.
    var seen: Log { log.withLock { $0 } }

    /// Waits until `condition` holds; false after two seconds.
    func wait(until condition: (Log) -> Bool) -> Bool {
        let deadline = Deadline(milliseconds: 2000)
        while !condition(seen) {
            if deadline.hasPassed { return false }
            usleep(200)
        }
        return true
    }

    /// Ends the thread, and with it the back-end.
    func finish() {
        stop.signal()
        thread.withLock { $0 }?.join()
    }

    private final class Device: BackendDelegate {
        let positions: [Int: UInt16]
        let note: ((inout Log) -> Void) -> Void

        init(positions: [Int: UInt16], note: @escaping ((inout Log) -> Void) -> Void) {
            self.positions = positions
            self.note = note
        }

        func backendConnected(_ backend: Backend) { note { $0.connectionCount += 1 } }

        func backend(_ backend: Backend, quiesce resume: @escaping () -> Void) {
            note { $0.quiesceCount += 1 }
            resume()
        }

        func backend(_ backend: Backend, changed description: PeerDescription) {
            note { $0.snapshots.append(description) }
        }

        func backend(_ backend: Backend, callChanged ring: Int, to call: FileDescriptor?) {}

        func backend(_ backend: Backend, disconnected reason: DisconnectReason) {
            note {
                $0.ends.append(reason)
                $0.snapshots = []
            }
        }

        func backend(_ backend: Backend, nextAvailableOf ring: Int) -> UInt16? { positions[ring] }

        func backend(_ backend: Backend, refused violation: Violation) {
            note { $0.refusals.append(violation) }
        }
    }
}

/// A back-end that answers each request as a test says, on a thread of its own.
final class ScriptedBackend: Sendable {
    /// What to send, after how many milliseconds, with how many descriptors.
    enum Answer: Sendable {
        case bytes([UInt8])
        case withDescriptor([UInt8])
        case oneByteAtATime([UInt8], milliseconds: UInt64)
        case nothing
        case close
    }

    /// The front-end's end.
    let socket: UnixSocket
    private let isOver = Atomic<Bool>(false)
    private let thread = Mutex<PollingThread?>(nil)
    private let received = Mutex<[UInt32]>([])

    init(_ answer: @escaping @Sendable (Message) -> Answer) throws {
        let (near, far) = try UnixSocket.pair()
        socket = near
        let running = try PollingThread(name: "script") { [self] in
            let connection = Connection(far)
            while !isOver.load(ordering: .relaxed) {
                switch connection.receive() {
                case .message(let message):
                    received.withLock { $0.append(message.header.request) }
                    if !give(answer(message), far) { return }
                case .waiting: usleep(200)
                case .closed, .violation: return
                }
            }
        }
        thread.withLock { $0 = running }
    }

    /// Ids of the requests that came.
    var requests: [UInt32] { received.withLock { $0 } }

    private func give(_ answer: Answer, _ socket: UnixSocket) -> Bool {
        switch answer {
        case .bytes(let bytes): _ = try? socket.send(bytes[...])
        case .withDescriptor(let bytes):
            guard let event = try? EventFD() else { return false }
            _ = try? socket.send(bytes[...], descriptors: [event.descriptor])
        case .oneByteAtATime(let bytes, let pause):
            for byte in bytes where !isOver.load(ordering: .relaxed) {
                _ = try? socket.send([byte][...])
                let next = Deadline(milliseconds: pause)
                while !next.hasPassed, !isOver.load(ordering: .relaxed) { usleep(200) }
            }
        case .nothing: break
        case .close: return false
        }
        return true
    }

    func finish() {
        isOver.store(true, ordering: .relaxed)
        thread.withLock { $0 }?.join()
    }

    /// What a faultless back-end with these features answers.
    static func good(
        _ message: Message,
        features: UInt64 = SessionRig.features.rawValue | 1 << 30,
        protocolFeatures: UInt64 = 9,
        queueCount: UInt64 = 1
    ) -> Answer {
        guard let request = Request(rawValue: message.header.request) else { return .close }
        let number: UInt64? =
            switch request {
            case .getFeatures: features
            case .getProtocolFeatures: protocolFeatures
            case .getQueueCount: queueCount
            case .getStatus: 0xb
            default: message.header.needsReply ? 0 : nil
            }
        guard let number else { return .nothing }
        return .bytes(
            Message.reply(to: request.rawValue, payload: NumberPayload.encode(number))
        )
    }
}
