public import HostSystem
public import Virtqueue

/// Why the engine refuses or fails, with what to do about it where there is something.
public enum EngineError: Error, Sendable, CustomStringConvertible {
    /// No core was given.
    case noCores
    /// One core was given twice: two polling threads on it would take turns.
    case repeatedCore(Int)
    /// This process may not run on the core.
    case unusableCore(Int, usable: [Int])
    /// A part that does not exist.
    case notSupported(String)
    /// A frame size that no generated frame has.
    case packetSize(Int, allowed: ClosedRange<Int>)
    /// Packets a second that cannot be generated.
    case rate(UInt64)
    /// A worker did not come up in time.
    case startTimeout(core: Int, milliseconds: UInt64)
    /// A system call failed.
    case system(SystemError)
    /// All port slots are taken.
    case tooManyPorts(limit: Int)
    /// Two ports of one name.
    case repeatedName(String)
    /// The port is not one that can be used so.
    case wrongPort(String, why: String)
    /// The port has its rings already.
    case attached(String)
    /// No queue pair, or more than a port can have.
    case pairCount(Int, limit: Int)
    /// A device's queue pair cannot be worked on.
    case queue(pair: Int, QueueError)
    /// A worker did not let go of a port in time. The port's memory stays mapped until it does.
    case workerStuck(core: Int, port: String, milliseconds: UInt64)
    /// Workers did not end in time. Their memory stays mapped.
    case stopTimeout(cores: [Int], milliseconds: UInt64)
    /// The engine was stopped.
    case stopped
    /// A TAP interface cannot be used.
    case tap(TapError)

    /// One line for people.
    public var description: String {
        switch self {
        case .noCores: "no core to work on; name at least one CPU"
        case .repeatedCore(let core): "core \(core) is named twice; each worker needs its own"
        case .unusableCore(let core, let usable):
            "this process may not run on CPU \(core); it may on "
                + usable.map(String.init).joined(separator: ",")
        case .notSupported(let what): "not supported: \(what)"
        case .packetSize(let size, let allowed):
            "packet size \(size) is not in \(allowed.lowerBound)…\(allowed.upperBound)"
        case .rate(let rate): "\(rate) packets a second cannot be generated"
        case .startTimeout(let core, let limit):
            "the worker of CPU \(core) did not start within \(limit) ms"
        case .system(let error): error.description
        case .tooManyPorts(let limit): "no room for another port; the limit is \(limit)"
        case .repeatedName(let name): "a port \(name) exists already"
        case .wrongPort(let name, let why): "port \(name): \(why)"
        case .attached(let name): "port \(name) is attached already; detach it first"
        case .pairCount(let count, let limit):
            "\(count) queue pairs; a port has 1…\(limit)"
        case .queue(let pair, let error): "\(error.rawValue): queue pair \(pair)"
        case .workerStuck(let core, let port, let limit):
            "the worker of CPU \(core) did not let go of port \(port) within \(limit) ms"
        case .stopTimeout(let cores, let limit):
            "the workers of CPUs \(cores.map(String.init).joined(separator: ",")) "
                + "did not end within \(limit) ms"
        case .stopped: "the engine was stopped"
        case .tap(let error): error.description
        }
    }
}
