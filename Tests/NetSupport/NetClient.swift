public import GuestMemory
public import Virtio
public import VirtioSpec
import Virtqueue

/// A network driver in its simplest form: whole frames in and out of the first queue pair, on the
/// calling thread. It can leave things out, or do them at the wrong time.
public final class NetClient {
    /// What it drives.
    public let transport: any VirtioTransport
    /// The negotiated features.
    public private(set) var features: FeatureBits = []
    /// Frames that a receive buffer is long enough for.
    public static let longestFrame = 2048 - NetHeader.size

    private var arena: DMAArena?
    private var receive: DriverBufferQueue?
    private var transmit: DriverBufferQueue?
    private var parts: [[UInt8]] = []
    private let size: UInt16

    /// Features that it takes where they are offered.
    public static let wanted: FeatureBits = [
        .netMAC, .netStatus, .netMTU, .netMergeableBuffers, .indirectDescriptors, .eventIndex,
        .accessPlatform, .ringReset,
    ]

    /// Makes a driver; the device is not touched yet.
    public init(_ transport: any VirtioTransport, ringSize: UInt16 = 16) {
        self.transport = transport
        size = ringSize
    }

    /// Brings the device to DRIVER_OK with receive buffers posted. `vector` is delivered when a frame
    /// has come.
    public func start(wanted: FeatureBits = NetClient.wanted, vector: UInt16? = nil) throws {
        stop()
        let arena = try transport.makeArena(size: 2 * Int(size) * 2048 + 64 * 1024)
        self.arena = arena
        features = try DriverHandshake.run(transport, wanted: wanted) {
            (features) throws(VirtioError) in
            try setUp(0, QueueFeatures(features), arena, vector)
            try setUp(1, QueueFeatures(features), arena, nil)
        }
        try receive?.notify()
    }

    /// Sets a queue up again after it was reset by itself; what was in it is lost.
    public func restart(_ queue: Int) throws {
        guard let arena else { return }
        if queue == 0 { receive?.release() } else { transmit?.release() }
        try setUp(queue, QueueFeatures(features), arena, nil)
        if queue == 0 { try receive?.notify() }
    }

    private func setUp(
        _ queue: Int,
        _ features: QueueFeatures,
        _ arena: DMAArena,
        _ vector: UInt16?
    ) throws(VirtioError) {
        let made = try DriverBufferQueue(
            transport: transport,
            queue: queue,
            size: size,
            bufferSize: 2048,
            arena: arena,
            features: features,
            vector: vector
        )
        if queue == 0 {
            receive = made
            for _ in 0..<size { _ = try made.submit(readable: [], writableCount: 2048) }
        } else {
            transmit = made
        }
    }

    /// Sends a frame; false when the ring is full.
    public func send(_ frame: [UInt8]) throws -> Bool {
        guard let transmit else { return false }
        while try transmit.poll() != nil {}
        guard transmit.outstanding < size else { return false }
        let header = [UInt8](repeating: 0, count: NetHeader.size)
        _ = try transmit.submit(readable: header + frame, writableCount: 0)
        try transmit.notify()
        return true
    }

    /// Frames that the device still has to take.
    public var unsent: Int {
        get throws {
            guard let transmit else { return 0 }
            while try transmit.poll() != nil {}
            return transmit.outstanding
        }
    }

    /// The frames that have come since.
    public func frames() throws -> [[UInt8]] {
        guard let receive else { return [] }
        var frames: [[UInt8]] = []
        while let completion = try receive.poll() {
            parts.append(completion.written)
            let wanted = features.contains(.netMergeableBuffers) ? Int(parts[0][10]) : 1
            if parts.count >= max(1, wanted) {
                frames.append(Array(parts.joined().dropFirst(NetHeader.size)))
                parts = []
            }
            _ = try receive.submit(readable: [], writableCount: 2048)
        }
        try receive.notify()
        return frames
    }

    /// Where the driver's memory is.
    public var memory: DMAArena? { arena }

    /// Resets the device and takes everything back.
    public func stop() {
        try? transport.reset()
        receive?.release()
        transmit?.release()
        receive = nil
        transmit = nil
        parts = []
        if let arena { try? transport.releaseArena(arena) }
        arena = nil
    }
}
