import HostSystem
import Testing

@testable import PollEngine

/// An engine on one CPU with in-process peers, driven from the test's thread.
final class EngineRig {
    let engine: Engine
    private(set) var peers: [PeerRig] = []
    private(set) var ports: [PortID] = []

    /// The last CPU that this process may use, as the program's default.
    static var core: Int { Topology.usableCPUs.last ?? 0 }

    init(
        _ mode: ForwardingMode,
        idle: IdleStrategy = .sleep,
        packetSize: Int = 64,
        rate: UInt64? = nil
    ) throws {
        engine = try Engine(
            mode: mode,
            cores: [EngineRig.core],
            idle: idle,
            packetSize: packetSize,
            rate: rate
        )
    }

    /// Adds a peer and attaches it; its receive ring is filled unless told otherwise.
    @discardableResult
    func addPeer(
        size: Int = 64,
        posting: Int = .max,
        isReceiveEnabled: Bool = true,
        isTransmitEnabled: Bool = true
    ) throws -> PeerRig {
        let peer = try PeerRig(size: size)
        peer.post(posting)
        let id = try engine.addPort(name: "peer\(peers.count)", kind: .peer)
        try engine.attach(
            id,
            pairs: try peer.pairs(
                isReceiveEnabled: isReceiveEnabled,
                isTransmitEnabled: isTransmitEnabled
            ),
            memory: peer.table
        )
        peers.append(peer)
        ports.append(id)
        return peer
    }

    /// Transmits from a peer and kicks.
    func send(_ frame: [UInt8], from index: Int) -> Bool {
        let sent = peers[index].send(frame)
        engine.wake(ports[index])
        return sent
    }

    /// Waits until the condition holds; false when it does not within two seconds.
    func eventually(_ condition: () -> Bool) -> Bool {
        let deadline = Deadline(milliseconds: 2000)
        while !condition() {
            if deadline.hasPassed { return condition() }
            for port in ports { engine.wake(port) }
            pause(microseconds: 50)
        }
        return true
    }

    /// The next frame at a peer, waited for.
    func frame(at index: Int) -> [UInt8]? {
        var frame: [UInt8]?
        _ = eventually {
            frame = peers[index].receiveFrame()
            return frame != nil
        }
        return frame
    }

    /// The report once the counters of a port are as wanted; the last one otherwise.
    func report(when isDone: (EngineReport) -> Bool = { _ in true }) -> EngineReport {
        var report = engine.snapshot()
        _ = eventually {
            report = engine.snapshot()
            return isDone(report)
        }
        return report
    }
}
