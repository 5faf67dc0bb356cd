import GuestMemory
import HostSystem
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

/// A driver that a test plays by hand: it posts buffers when told, and sends any bytes.
final class ManualDriver {
    let rig: LoopRig
    let configuration: EventFD
    private let receive: DriverBufferQueue
    private let transmit: DriverBufferQueue

    init(_ rig: LoopRig, features wanted: FeatureBits = FeatureMirror.supported) throws {
        self.rig = rig
        let transport = rig.transport
        let arena = try transport.makeArena(size: 1 << 20)
        var queues: [DriverBufferQueue] = []
        configuration = try transport.interrupt(0)
        _ = try DriverHandshake.run(transport, wanted: wanted) { features throws(VirtioError) in
            try transport.bindConfigurationVector(0)
            for queue in 0..<2 {
                queues.append(
                    try DriverBufferQueue(
                        transport: transport,
                        queue: queue,
                        size: 64,
                        bufferSize: 8192,
                        arena: arena,
                        features: QueueFeatures(features),
                        vector: nil
                    )
                )
            }
        }
        receive = queues[0]
        transmit = queues[1]
    }

    /// Gives the device buffers for messages.
    func post(_ count: Int, size: Int = 4096) throws {
        for _ in 0..<count { _ = try receive.submit(readable: [], writableCount: size) }
        try receive.notify()
    }

    /// The next message of the device, if there is one.
    func next() throws -> [UInt8]? {
        try receive.poll()?.written
    }

    /// Waits for the next message.
    func message(location: SourceLocation = #_sourceLocation) throws -> DeviceMessage {
        var frame: [UInt8]?
        try rig.wait("message", location: location) {
            frame = try next()
            return frame != nil
        }
        return try DeviceMessage(frame: try #require(frame))
    }

    func send(_ frame: [UInt8], writable: Int = 0) throws {
        while try transmit.poll() != nil {}
        _ = try transmit.submit(readable: frame, writableCount: writable)
        try transmit.notify()
    }

    func send(_ message: DriverMessage) throws {
        try send(message.frame)
    }

    /// Where the window is in this process.
    var windowAddress: UInt64 {
        UInt64(UInt(bitPattern: unsafe rig.window.address))
    }

    func acknowledge(_ generation: UInt32? = nil) throws {
        try send(.windowAddress(windowAddress, generation: generation))
    }

    var needsReset: Bool {
        get throws { try rig.transport.status().contains(.needsReset) }
    }

    /// Takes a peer all the way to ON.
    func connect(_ peer: ScriptedPeer, location: SourceLocation = #_sourceLocation) throws {
        try post(8)
        try peer.connect()
        try takeOn(location: location)
    }

    /// Takes messages up to ON, acknowledging the table.
    func takeOn(location: SourceLocation = #_sourceLocation) throws {
        while true {
            switch try message(location: location) {
            case .memory(let information):
                try acknowledge(information.generation)
                try post(1)
            case .connection(isOn: true):
                return try post(1)
            default: try post(1)
            }
        }
    }
}
