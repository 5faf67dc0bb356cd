import FunctionSupport
import GuestMemory
import HostSystem
import NetSupport
import PCI
import PollEngine
import Testing
import Virtio
import VirtioNet
import VirtioSpec
import Virtqueue

/// Our device behind a PCI function of this process, a driver of it, and a host that sends back what
/// comes, when it is told to.
final class NetDeviceRig {
    static let address: [UInt8] = [2, 0, 0, 0, 0, 9]

    let loop: EventLoop
    let host = EchoHost()
    let device: NetDevice
    let function: TamperedFunction<NetDevice>
    let transport: PCITransport
    let client: NetClient
    private(set) var events: [NetDeviceEvent] = []

    init(_ options: NetDeviceOptions = NetDeviceOptions(macAddress: NetDeviceRig.address)) throws {
        loop = try EventLoop()
        device = try NetDevice(options, loop: loop, host: host)
        function = try TamperedFunction(device)
        transport = try PCITransport(function: function)
        client = NetClient(transport)
        device.report = { [weak self] in self?.events.append($0) }
    }

    /// Serves what is ready, also what follows from that.
    func turn() throws {
        for _ in 0..<8 { try loop.turn(limitMilliseconds: 0) }
    }

    func wait(
        _ what: String,
        location: SourceLocation = #_sourceLocation,
        until condition: () throws -> Bool
    ) throws {
        let deadline = Deadline(milliseconds: 3000)
        while try !condition() {
            guard !deadline.hasPassed else {
                Issue.record("no \(what)", sourceLocation: location)
                return
            }
            try loop.turn(limitMilliseconds: 5)
        }
    }

    /// Frames go out, come back, and are the same.
    func expectEcho(_ seed: UInt8 = 1, location: SourceLocation = #_sourceLocation) throws {
        let frames = (1...5).map { length in
            (0..<length * 300).map { UInt8(truncatingIfNeeded: $0) &+ seed }
        }
        for frame in frames {
            #expect(try client.send(frame), sourceLocation: location)
            host.echo()
            #expect(try client.frames() == [frame], sourceLocation: location)
        }
        #expect(try client.unsent == 0, sourceLocation: location)
    }

    func setCommand(_ command: CommandRegister) throws {
        try function.writeConfiguration(
            ConfigurationHeader.command,
            .word,
            UInt32(command.rawValue)
        )
    }

    var faults: [String] {
        events.compactMap { if case .failed(let fault) = $0 { fault.id } else { nil } }
    }
}

/// Works the rings on the calling thread.
final class EchoHost: PeerConnectionHost {
    private(set) var connection: PeerConnection?
    private(set) var connects = 0
    private(set) var disconnects = 0
    /// Requests to let go that are answered with a thread that does not.
    var refusals = 0
    /// Connections that it will not take.
    var failures = 0
    /// It follows changes of memory; how often it did.
    var follows: Int?
    private var port: [Port] = []

    /// A noncopyable value in a place of its own.
    private final class Port {
        var port: PeerPort
        init(_ port: consuming PeerPort) { self.port = port }
    }

    func peerConnected(_ connection: PeerConnection) throws(PeerConnectionFailure) {
        #expect(self.connection == nil)
        if failures > 0 {
            failures -= 1
            throw PeerConnectionFailure("port/attach", "not now")
        }
        self.connection = connection
        connects += 1
        let receive = connection.rings.first { $0.index == 0 }
        let transmit = connection.rings.first { $0.index == 1 }
        do {
            port = [
                Port(
                    PeerPort(
                        receive: try transmit.map { ring in
                            try SplitDeviceQueue(ring.configuration, memory: connection.memory)
                        },
                        transmit: try receive.map { ring in
                            try SplitDeviceQueue(ring.configuration, memory: connection.memory)
                        },
                        mergeable: connection.features.contains(.netMergeableBuffers),
                        receiveDoorbell: transmit?.doorbell ?? .none,
                        transmitDoorbell: receive?.doorbell ?? .none
                    )
                )
            ]
        } catch {
            Issue.record("\(error)")
        }
    }

    func peerDisconnecting(milliseconds: UInt64) -> Bool {
        if refusals > 0 {
            refusals -= 1
            return false
        }
        connection = nil
        port = []
        disconnects += 1
        return true
    }

    func peerMemoryChanged(_ memory: MemoryTable, milliseconds: UInt64) -> Bool {
        guard let count = follows, let connection, let moved = connection.moved(to: memory),
            refusals == 0
        else { return false }
        follows = count + 1
        self.connection = nil
        port = []
        // A queue of its own goes on where the one before was: nothing is under way here.
        try? peerConnected(moved.resumed())
        connects -= 1
        return true
    }

    /// One turn of a worker.
    func echo() {
        guard let holder = port.first else { return }
        var burst = ChainBurst()
        let count = holder.port.receive(into: &burst, limit: 32)
        _ = holder.port.transmit(burst, from: 0, count: count)
        holder.port.finishTransmit()
        holder.port.finishReceive(burst)
    }

    var brokenPairs: [Int: String] { error.map { [0: $0.rawValue] } ?? [:] }

    var error: QueueError? { port.first?.port.error }
}

extension PeerConnection {
    /// The rings go on at their used index.
    fileprivate func resumed() -> PeerConnection {
        let rings = rings.map { ring in
            var configuration = ring.configuration
            let used = memory.read(configuration.deviceArea + 2, 2) ?? [0, 0]
            configuration.nextAvailable = UInt16(used[0]) | UInt16(used[1]) << 8
            return PeerRingSetup(
                index: ring.index,
                isPeerTransmit: ring.isPeerTransmit,
                isEnabled: ring.isEnabled,
                isStarted: ring.isStarted,
                configuration: configuration,
                doorbell: ring.doorbell,
                wakeup: ring.wakeup
            )
        }
        return PeerConnection(
            memory: memory,
            features: features,
            rings: rings,
            generation: generation
        )
    }
}
