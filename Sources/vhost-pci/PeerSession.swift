import CSystemShims
import Glibc
import HostSystem
import VhostUser
import VirtioSpec
import Virtqueue

/// One of our own peers at work: a virtio-net driver over a vhost-user connection, polling.
struct PeerSession {
    /// How long a finished peer goes on answering the other one, in nanoseconds without a frame.
    private static let quiet: UInt64 = 500_000_000
    /// How long to wait for the first frame before giving up.
    private static let greetingLimit: UInt64 = 10_000_000_000
    /// Turns without a frame before the CPU is given away.
    private static let patience = 64

    private static let wanted: FeatureBits = [
        .version1, .netMergeableBuffers, .eventIndex, .inOrder,
    ]

    let socket: String
    var traffic: PeerTraffic
    /// Reports signals that ask for an early end; none when not given.
    var signals: FileDescriptor?
    private var isAskedToEnd = false

    init(socket: String, traffic: PeerTraffic, signals: FileDescriptor?) {
        self.socket = socket
        self.traffic = traffic
        self.signals = signals
    }

    /// Runs to the end and returns the counts. Throws when the back-end goes away or breaks a rule.
    mutating func run() throws -> PeerTraffic.Summary {
        let frontend = try Frontend.connect(to: socket, wish: FrontendWish(features: Self.wanted))
        let rings = try NetRings(features: frontend.features)
        rings.station = traffic.own
        try frontend.share([rings.region])
        let pair = try rings.configurations.enumerated().map { index, configuration in
            try FrontendRing(
                index: index,
                size: configuration.size,
                descriptorArea: configuration.descriptorArea,
                driverArea: configuration.driverArea,
                deviceArea: configuration.deviceArea
            )
        }
        for ring in pair { try frontend.start(ring) }
        for ring in pair { try frontend.setEnabled(ring.index, true) }
        try frontend.driverReady()
        try exchange(frontend, rings, receiveKick: pair[0].kick, transmitKick: pair[1].kick)
        for ring in pair { _ = try frontend.stop(ring.index) }
        frontend.close()
        return traffic.finalSummary()
    }

    private mutating func exchange(
        _ frontend: Frontend,
        _ rings: NetRings,
        receiveKick: EventFD,
        transmitKick: EventFD
    ) throws {
        let started = MonotonicClock.now
        var lastFrame = started
        var idleTurns = 0
        var nextCheck = started
        while true {
            let now = MonotonicClock.now
            let arrived = rings.receive { frame in
                traffic.accept(frame, now: MonotonicClock.now)
                lastFrame = now
            }
            if arrived.wantsKick { try kick(receiveKick) }
            let sent = send(rings)
            if rings.flushSent() { try kick(transmitKick) }
            if let error = rings.error { throw error }
            if traffic.phase == .finished, isAskedToEnd || now > lastFrame + Self.quiet { return }
            if traffic.phase == .greeting, now > started + Self.greetingLimit {
                throw PeerError.silence(seconds: Self.greetingLimit / 1_000_000_000)
            }
            if now >= nextCheck {
                nextCheck = now + 10_000_000
                if let signals, shim_next_signal(signals.rawValue) > 0 {
                    isAskedToEnd = true
                    traffic.end(now: now)
                }
                guard frontend.checkConnection() else { throw PeerError.backendGone }
                let broken = frontend.takeBrokenRings()
                guard broken.isEmpty else { throw PeerError.brokenRings(broken) }
            }
            idleTurns = arrived.count == 0 && !sent ? idleTurns + 1 : 0
            if idleTurns > Self.patience { sched_yield() }
        }
    }

    private func kick(_ event: EventFD) throws(PeerError) {
        if event.signal() == .blocked { throw .kickBlocked }
    }

    /// Queues what there is to send, a ring's worth at the most; true when there was something.
    private mutating func send(_ rings: NetRings) -> Bool {
        var count = 0
        while count < Int(NetRings.ringSize), rings.canSend(),
            let frame = traffic.nextFrame(now: MonotonicClock.now)
        {
            guard rings.send(frame) else { break }
            count += 1
        }
        return count > 0
    }
}

/// Why a peer ended early.
enum PeerError: Error, CustomStringConvertible {
    case silence(seconds: UInt64)
    case backendGone
    case brokenRings([Int])
    case kickBlocked

    var description: String {
        switch self {
        case .silence(let seconds):
            "nobody answered within \(seconds) s: no echo, or no partner of the given address"
        case .backendGone: "the back-end closed the connection"
        case .brokenRings(let rings):
            "the back-end reports broken rings: \(rings.map(String.init).joined(separator: ", "))"
        case .kickBlocked:
            "notify/blocked: the back-end makes the kick eventfd block whoever signals it"
        }
    }
}
