public import HostSystem
public import PCI

/// A PCI function behind a socket, of any vfio-user server: another process that emulates a device,
/// or hands one on.
///
/// Each access to a register is a message and its reply. What the server lets be mapped is mapped;
/// arenas are handed over as files, so that the server reaches them without us. Its interrupts are
/// our eventfds. A server that does not answer in time, or answers what was not asked, is lost: every
/// call then throws the same named refusal, and a new client has to be made (VFU-C-07, HI-E44).
///
/// Control path, one thread. Doorbells work from any thread: they are the server's own eventfds where
/// it has some, else a mapped register, else an eventfd of ours for which a thread writes the register.
///
///     let function = try Client(path: "/run/device.sock")
///     let transport = try PCITransport(function: function)
public final class Client: PCIFunction {
    /// The socket's path, for messages.
    public let name: String

    let channel: ClientChannel
    let canReset: Bool
    private let regions: [Int: ClientRegion]
    var interrupts: ClientInterrupts?
    var memory: ClientMemory
    var regionEvents: [Int: RegionEvents] = [:]
    var windows: [ClientWindow] = []
    var bells: [EventFD] = []
    var attendant: ClientAttendant?
    var watch: (loop: EventLoop, sources: [EventLoop.Source])?

    /// Connects to a server and resets its device.
    ///
    /// Throws `refused` with what stands in the way and what to do about it: `vfu/socket`,
    /// `vfu/nobody`, `vfu/busy`, `vfu/negotiate`, `vfu/stall`, `vfu/peer-gone`, `region/info`.
    public convenience init(
        path: String,
        limits: ClientLimits = ClientLimits()
    ) throws(PCIError) {
        let socket: UnixSocket
        do throws(SystemError) {
            socket = try UnixSocket.connect(to: path)
        } catch {
            throw Client.refusal(of: error, path)
        }
        try self.init(socket, name: path, limits: limits)
    }

    /// Takes over a connected socket.
    public init(
        _ socket: UnixSocket,
        name: String,
        limits: ClientLimits = ClientLimits()
    ) throws(PCIError) {
        self.name = name
        memory = ClientMemory(limits)
        let channel = try ClientChannel(socket, name: name, limits: limits)
        self.channel = channel
        let info = try Client.information(channel)
        canReset = info.flags.contains(.reset)
        if canReset { try Client.reset(channel) }
        var regions: [Int: ClientRegion] = [:]
        for index in Array(RegionIndex.bars) + [RegionIndex.configuration] {
            regions[index] = try ClientRegion(index, of: channel)
        }
        guard let configuration = regions[RegionIndex.configuration],
            (64...4096).contains(configuration.size)
        else { throw channel.fail("region/info", "configuration space has an absurd length") }
        self.regions = regions
        let hasMessages = info.interruptCount > InterruptIndex.msix.rawValue
        interrupts = hasMessages ? try ClientInterrupts(channel) : nil
    }

    deinit {
        stopWatching()
        // The thread first: it uses the rest.
        attendant = nil
    }

    /// Why the device is lost; `nil` while it is not.
    public var fault: HostRefusal? { channel.fault }

    /// What was counted.
    public var counters: ClientCounters { channel.counters }

    static func reset(_ channel: ClientChannel) throws(PCIError) {
        _ = try channel.exchange(ClientRequest(command: .deviceReset), "the reset")
    }

    private static func refusal(of error: SystemError, _ path: String) -> PCIError {
        switch error.errno {
        case .noSuchFile:
            .refused(
                HostRefusal(
                    "vfu/socket",
                    "there is no socket at \(path)",
                    remedy: "start the server first, or correct the path; the socket of a"
                        + " vhost-pci-net device is there once its peer has connected"
                )
            )
        case .connectionRefused:
            .refused(
                HostRefusal(
                    "vfu/nobody",
                    "nobody listens at \(path)",
                    remedy: "start the server again: it has ended, or it is no socket"
                )
            )
        case .wouldBlock:
            .refused(
                HostRefusal(
                    "vfu/busy",
                    "the server at \(path) takes no more connections",
                    remedy: "it serves one client at a time: end the other one"
                )
            )
        default: .system(error)
        }
    }

    private static func information(_ channel: ClientChannel) throws(PCIError) -> DeviceInfo {
        let frame = try channel.exchange(
            ClientRequest(
                command: .deviceGetInfo,
                fixed: DeviceInfo().encoded,
                reply: DeviceInfo.size...DeviceInfo.size
            ),
            "the description of the device"
        )
        guard let info = DeviceInfo(frame.payload), info.flags.contains(.pci),
            info.regionCount > UInt32(RegionIndex.configuration)
        else { throw channel.fail("vfu/device", "the device is no PCI function") }
        return info
    }
}

// Configuration space and registers.
extension Client {
    /// Reads configuration space; bytes beyond its end read as ones.
    public func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        let count = configurationCount(offset, width)
        guard count > 0 else { return width.value(of: []) }
        return width.value(of: try read(RegionIndex.configuration, UInt64(offset), count))
    }

    /// Writes configuration space; nothing beyond its end.
    public func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        let count = configurationCount(offset, width)
        guard count > 0 else { return }
        let bytes = Array(width.bytes(of: value).prefix(count))
        try write(RegionIndex.configuration, UInt64(offset), bytes)
    }

    private func configurationCount(_ offset: Int, _ width: AccessWidth) -> Int {
        let size = Int(regions[RegionIndex.configuration]?.size ?? 0)
        guard offset >= 0, offset < size else { return 0 }
        return min(width.rawValue, size - offset)
    }

    /// Length of a BAR in bytes, 0 when it is absent.
    public func barSize(_ bar: Int) throws(PCIError) -> UInt64 {
        RegionIndex.bars.contains(bar) ? regions[bar]?.size ?? 0 : 0
    }

    /// Reads a register: a message and its reply.
    public func readRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        _ = try region(bar, offset, UInt64(width.rawValue))
        return width.value(of: try read(bar, offset, width.rawValue))
    }

    /// Writes a register; the server has taken it when this returns.
    public func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        _ = try region(bar, offset, UInt64(width.rawValue))
        try write(bar, offset, width.bytes(of: value))
    }

    /// Reads `count` bytes of a BAR by messages, each as long as the server allows (VFU-C-04).
    public func readBytes(_ bar: Int, _ offset: UInt64, _ count: Int) throws(PCIError) -> [UInt8] {
        guard count >= 0 else { throw .range(bar: bar, offset: offset, size: 0) }
        _ = try region(bar, offset, UInt64(count))
        return try read(bar, offset, count)
    }

    /// Writes bytes to a BAR by messages, each as long as the server allows (VFU-C-04).
    public func writeBytes(_ bar: Int, _ offset: UInt64, _ bytes: [UInt8]) throws(PCIError) {
        _ = try region(bar, offset, UInt64(bytes.count))
        try write(bar, offset, bytes)
    }

    func region(
        _ bar: Int,
        _ offset: UInt64,
        _ size: UInt64
    ) throws(PCIError) -> ClientRegion {
        guard RegionIndex.bars.contains(bar), let region = regions[bar], offset <= region.size,
            size <= region.size - offset
        else { throw .range(bar: bar, offset: offset, size: size) }
        return region
    }

    private func read(_ region: Int, _ offset: UInt64, _ count: Int) throws(PCIError) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            let at = offset + UInt64(bytes.count)
            let part = min(count - bytes.count, channel.server.transferSize)
            let access = RegionAccess(offset: at, region: UInt32(region), count: UInt32(part))
            let due = RegionAccess.size + part
            let frame = try channel.exchange(
                ClientRequest(command: .regionRead, fixed: access.encoded, reply: due...due),
                "reading \(part) bytes at \(at) of region \(region)"
            )
            try check(frame, access)
            bytes += frame.payload.dropFirst(RegionAccess.size)
        }
        return bytes
    }

    private func write(
        _ region: Int,
        _ offset: UInt64,
        _ bytes: [UInt8]
    ) throws(PCIError) {
        var done = 0
        while done < bytes.count {
            let at = offset + UInt64(done)
            let part = min(bytes.count - done, channel.server.transferSize)
            let access = RegionAccess(offset: at, region: UInt32(region), count: UInt32(part))
            let frame = try channel.exchange(
                ClientRequest(
                    command: .regionWrite,
                    fixed: access.encoded,
                    bytes: part == bytes.count ? bytes : Array(bytes[done..<(done + part)]),
                    reply: RegionAccess.size...RegionAccess.size
                ),
                "writing \(part) bytes at \(at) of region \(region)"
            )
            try check(frame, access)
            done += part
        }
    }

    private func check(_ frame: Frame, _ asked: RegionAccess) throws(PCIError) {
        guard RegionAccess(frame.payload) == asked else {
            throw channel.fail("vfu/reply", "a region access was answered for another one")
        }
    }
}
