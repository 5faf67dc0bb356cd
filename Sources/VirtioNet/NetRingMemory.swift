internal import GuestMemory
internal import HostSystem
internal import Virtio
internal import VirtioSpec
internal import Virtqueue

/// The memory of one queue pair: both rings and all their buffers in an arena of their own.
final class NetRingMemory {
    /// Entries of the control queue, which lies in the first pair's arena.
    static let controlSize: UInt16 = 16

    let arena: DMAArena
    /// The device's receive ring.
    let receive: QueueConfiguration
    /// The device's transmit ring.
    let transmit: QueueConfiguration
    private let receiveBuffers: PacketBuffers
    private let transmitBuffers: PacketBuffers

    /// Lays rings and buffers out. Sizes of buffers follow the MTU, which has 16 bits.
    init(
        _ transport: any VirtioTransport,
        receiveSize: UInt16,
        transmitSize: UInt16,
        identity: NetDriver.Identity,
        isFirst: Bool
    ) throws(VirtioError) {
        // A header, two addresses, a tag and a type come before what the MTU counts.
        let longest = NetHeader.size + 18 + Int(identity.mtu ?? 1500)
        let whole = (max(2048, longest) + 63) & ~63
        let isMergeable = identity.features.contains(.netMergeableBuffers)
        let received = isMergeable ? 2048 : whole
        var size = Self.ringBytes(receiveSize) + Self.ringBytes(transmitSize)
        size += Int(receiveSize) * received + Int(transmitSize) * whole
        if isFirst { size += 8192 }
        let arena = try transport.makeArena(size: (size + 4095) & ~4095)
        self.arena = arena
        do throws(VirtioError) {
            let features = QueueFeatures(identity.features)
            receive = try Self.ring(arena, receiveSize, features)
            transmit = try Self.ring(arena, transmitSize, features)
            receiveBuffers = try Self.buffers(arena, received, receiveSize)
            transmitBuffers = try Self.buffers(arena, whole, transmitSize)
        } catch {
            let reason = error
            do { try transport.releaseArena(arena) } catch { throw reason }
            throw reason
        }
    }

    /// The pair without doorbells.
    func pair(features: FeatureBits, wakeup: EventFD?) -> PacketPairConfiguration {
        PacketPairConfiguration(
            receive: receive,
            transmit: transmit,
            receiveBuffers: receiveBuffers,
            transmitBuffers: transmitBuffers,
            memory: Self.table(of: arena),
            isMergeable: features.contains(.netMergeableBuffers),
            wakeup: wakeup
        )
    }

    /// Bytes of a ring's three areas, each on lines of its own.
    private static func ringBytes(_ size: UInt16) -> Int {
        SplitRingLayout.descriptorAreaSize(size) + SplitRingLayout.driverAreaSize(size)
            + SplitRingLayout.deviceAreaSize(size) + 3 * 64
    }

    private static func ring(
        _ arena: DMAArena,
        _ size: UInt16,
        _ features: QueueFeatures
    ) throws(VirtioError) -> QueueConfiguration {
        QueueConfiguration(
            size: size,
            descriptorArea: try take(arena, SplitRingLayout.descriptorAreaSize(size)),
            driverArea: try take(arena, SplitRingLayout.driverAreaSize(size)),
            deviceArea: try take(arena, SplitRingLayout.deviceAreaSize(size)),
            features: features
        )
    }

    private static func buffers(
        _ arena: DMAArena,
        _ size: Int,
        _ count: UInt16
    ) throws(VirtioError) -> PacketBuffers {
        PacketBuffers(
            address: try take(arena, size * Int(count)),
            size: size,
            count: Int(count)
        )
    }

    private static func take(_ arena: DMAArena, _ size: Int) throws(VirtioError) -> UInt64 {
        guard let buffer = arena.allocate(size) else {
            throw .noRoom("\(size) bytes of a queue pair")
        }
        return buffer.deviceAddress
    }

    private static func table(of arena: DMAArena) -> MemoryTable {
        let region = unsafe MemoryRegion(
            start: arena.deviceAddress,
            size: UInt64(arena.mapping.length),
            host: arena.mapping.address
        )
        guard let region, let table = try? MemoryTable([region], owners: [arena.mapping]) else {
            return .empty
        }
        return table
    }
}
