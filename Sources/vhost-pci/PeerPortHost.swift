import GuestMemory
import HostSystem
import PollEngine
import VhostPCINet
import VirtioSpec
import Virtqueue

/// Joins a vhost-pci-net driver, or a network device, to a port of the engine: rings are attached at
/// ON and taken away, with the worker's word for it, at OFF.
final class PeerPortHost: VhostPCINetHost {
    private let engine: Engine
    private let port: PortID
    private let loop: EventLoop
    private let report: (_ text: String, _ id: String?) -> Void
    private var wakeups: [EventLoop.Source] = []
    /// Queue pairs in the order in which the engine has them.
    private var pairNumbers: [Int] = []
    /// Queue pairs that were handed over and cannot be worked, with the error id.
    private var unusablePairs: [Int: String] = [:]
    /// Why the rings that were handed over last are worked by nobody; `nil` when they are.
    private(set) var failure: PeerConnectionFailure?
    /// Which attachment of the port is ours: another host may have the port next.
    private var attachment: Int?
    /// Called for each event of the driver, after it was reported.
    var onEvent: ((DriverEvent) -> Void)?

    init(
        engine: Engine,
        port: PortID,
        loop: EventLoop,
        report: @escaping (_ text: String, _ id: String?) -> Void
    ) {
        self.engine = engine
        self.port = port
        self.loop = loop
        self.report = report
    }

    func peerConnected(_ connection: PeerConnection) throws(PeerConnectionFailure) {
        failure = nil
        do throws(PeerConnectionFailure) {
            try attach(connection)
        } catch {
            failure = error
            throw error
        }
    }

    private func attach(_ connection: PeerConnection) throws(PeerConnectionFailure) {
        var pairs = PortPairs()
        var seen = Set<Int>()
        pairNumbers = []
        unusablePairs = [:]
        for ring in connection.rings where seen.insert(ring.index / 2).inserted {
            let pair = connection.rings.filter { $0.index / 2 == ring.index / 2 }
            let transmit = pair.first { $0.isPeerTransmit && $0.isStarted }
            let receive = pair.first { !$0.isPeerTransmit && $0.isStarted }
            guard transmit != nil || receive != nil else { continue }
            do throws(QueueError) {
                pairs.append(
                    PeerPort(
                        receive: try queue(transmit, connection.memory),
                        transmit: try queue(receive, connection.memory),
                        mergeable: connection.features.contains(.netMergeableBuffers),
                        receiveDoorbell: transmit?.doorbell ?? .none,
                        transmitDoorbell: receive?.doorbell ?? .none
                    ),
                    isReceiveEnabled: receive?.isEnabled ?? false,
                    isTransmitEnabled: transmit?.isEnabled ?? false
                )
                pairNumbers.append(ring.index / 2)
            } catch {
                unusablePairs[ring.index / 2] = error.rawValue
                report("queue pair \(ring.index / 2): \(error.rawValue)", error.rawValue)
            }
        }
        guard pairs.count > 0 else {
            guard let broken = unusablePairs.min(by: { $0.key < $1.key }) else { return }
            throw PeerConnectionFailure(broken.value, "no queue pair can be worked")
        }
        do throws(EngineError) {
            try engine.attach(port, pairs: pairs, memory: connection.memory)
        } catch {
            throw PeerConnectionFailure(
                "port/attach",
                "\(error); tried again with the next connection"
            )
        }
        attachment = attachmentCount
        watchKicks(connection)
    }

    func peerDisconnecting(milliseconds: UInt64) -> Bool {
        for wakeup in wakeups { loop.remove(wakeup) }
        wakeups = []
        failure = nil
        unusablePairs = [:]
        guard attachment == attachmentCount else { return true }
        do throws(EngineError) {
            try engine.detach(port, milliseconds: milliseconds)
            attachment = nil
            return true
        } catch {
            if milliseconds > 0 { report("\(error)", nil) }
            return false
        }
    }

    func peerMemoryChanged(_ memory: MemoryTable, milliseconds: UInt64) -> Bool {
        guard let attachment, attachment == attachmentCount else { return false }
        do throws(EngineError) {
            try engine.exchange(port, memory: memory, milliseconds: milliseconds)
            return true
        } catch {
            report("\(error)", nil)
            return false
        }
    }

    private var attachmentCount: Int { engine.connections(of: port) }

    var brokenPairs: [Int: String] {
        var pairs = unusablePairs
        guard let report = engine.report(of: port), report.isAttached,
            let error = report.ringError
        else { return pairs }
        for pair in report.brokenPairs where pairNumbers.indices.contains(pair) {
            pairs[pairNumbers[pair]] = error.id
        }
        return pairs
    }

    func driverReport(_ event: DriverEvent) {
        var id: String?
        if case .refused(let refusal) = event { id = refusal.id }
        report("\(event)", id)
        onEvent?(event)
    }

    private func queue(
        _ ring: PeerRingSetup?,
        _ memory: MemoryTable
    ) throws(QueueError) -> SplitDeviceQueue? {
        guard let ring else { return nil }
        return try SplitDeviceQueue(ring.configuration, memory: memory)
    }

    /// A kick wakes a sleeping worker. One that never sleeps asks for no kicks, and a peer that kicks
    /// nevertheless does not make this thread run for it.
    private func watchKicks(_ connection: PeerConnection) {
        guard engine.idle == .sleep else { return }
        for wakeup in connection.rings.compactMap(\.wakeup) {
            let source = try? loop.watch(wakeup.descriptor) { [engine, port] in
                _ = wakeup.drain()
                engine.wake(port)
            }
            if let source {
                wakeups.append(source)
            } else {
                report("kicks of a ring cannot be watched; its packets wait for the next turn", nil)
            }
        }
    }
}
