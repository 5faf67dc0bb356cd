/// The frame of every control message: class, command, then what they define, little-endian and
/// without a length field. The length is the buffer's (vhost-pci-net RFC 2016).
private enum ControlClass {
    static let connection: UInt8 = 0
    static let memory: UInt8 = 1
    static let queues: UInt8 = 2
    static let logging: UInt8 = 3
}

private enum Command {
    static let off: UInt8 = 0
    static let on: UInt8 = 1
    static let memoryByBAR: UInt8 = 0
    static let memoryByAddress: UInt8 = 1
    static let queues: UInt8 = 0
    static let logBase: UInt8 = 2
    static let logBAR: UInt8 = 3
}

/// A message from the device to the driver: control receiveq, queue 0.
public enum DeviceMessage: Equatable, Sendable {
    /// PEER_CONNECTION: the peer's memory may be touched from now on, or no longer.
    case connection(isOn: Bool)
    /// PEER_MEM_INFO, by BAR or by address.
    case memory(PeerMemoryInformation)
    /// PEER_VIRTQ_INFO, whole or a part.
    case queues(PeerQueueInformation)
    /// DIRTY_PAGE_LOGGING.
    case logging(DirtyPageLogging)

    /// The bytes of the frame.
    public var frame: [UInt8] {
        var writer = WireWriter()
        switch self {
        case .connection(let isOn):
            writer.append([ControlClass.connection, isOn ? Command.on : Command.off])
        case .memory(let information):
            writer.integer(ControlClass.memory)
            switch information.location {
            case .bar: writer.integer(Command.memoryByBAR)
            case .address: writer.integer(Command.memoryByAddress)
            }
            information.encode(into: &writer)
        case .queues(let information):
            writer.append([ControlClass.queues, Command.queues])
            information.encode(into: &writer)
        case .logging(let logging):
            writer.integer(ControlClass.logging)
            logging.encode(into: &writer)
        }
        return writer.bytes
    }

    /// Reads a frame; bytes behind what a message defines are passed over.
    public init(frame: [UInt8]) throws(ControlFrameError) {
        guard frame.count >= 2 else {
            throw .unknown(frameLength: frame.count, class: frame.first, command: nil)
        }
        let (type, command, data) = (frame[0], frame[1], Array(frame.dropFirst(2)))
        switch (type, command) {
        case (ControlClass.connection, Command.off): self = .connection(isOn: false)
        case (ControlClass.connection, Command.on): self = .connection(isOn: true)
        case (ControlClass.memory, Command.memoryByBAR):
            self = .memory(try PeerMemoryInformation(decoding: data, isAddress: false))
        case (ControlClass.memory, Command.memoryByAddress):
            self = .memory(try PeerMemoryInformation(decoding: data, isAddress: true))
        case (ControlClass.queues, Command.queues):
            self = .queues(try PeerQueueInformation(decoding: data))
        case (ControlClass.logging, 0...Command.logBAR):
            self = .logging(try DirtyPageLogging(decoding: data, command: command))
        default:
            throw .unknown(frameLength: frame.count, class: type, command: command)
        }
    }
}

/// A message from the driver to the device: control transmitq, queue 1.
public enum DriverMessage: Equatable, Sendable {
    /// PEER_CONNECTION OFF: please disconnect, or the acknowledgement of the device's own OFF.
    case off
    /// PEER_MEM_INFO GVA: where the driver mapped the window; acknowledges the table with that
    /// generation, or the newest one when the driver gives none. Never used as a pointer.
    case windowAddress(UInt64, generation: UInt32?)

    /// The bytes of the frame.
    public var frame: [UInt8] {
        var writer = WireWriter()
        switch self {
        case .off: writer.append([ControlClass.connection, Command.off])
        case .windowAddress(let address, let generation):
            writer.append([ControlClass.memory, Command.memoryByAddress])
            writer.integer(address)
            if let generation { writer.integer(generation) }
        }
        return writer.bytes
    }

    /// Reads a frame, to the byte: a driver has no reason to send more (VPN-D-21).
    public init(frame: [UInt8]) throws(ControlFrameError) {
        guard frame.count >= 2 else {
            throw .unknown(frameLength: frame.count, class: frame.first, command: nil)
        }
        let (type, command, data) = (frame[0], frame[1], Array(frame.dropFirst(2)))
        switch (type, command) {
        case (ControlClass.connection, Command.off):
            guard data.isEmpty else { throw .cut(expected: 2, actual: frame.count) }
            self = .off
        case (ControlClass.memory, Command.memoryByAddress):
            var reader = WireReader(data)
            guard data.count == 8 || data.count == 12, let address = reader.integer(UInt64.self)
            else { throw .cut(expected: 14, actual: frame.count) }
            self = .windowAddress(address, generation: reader.integer(UInt32.self))
        case (ControlClass.connection, Command.on), (ControlClass.memory, Command.memoryByBAR),
            (ControlClass.queues, Command.queues), (ControlClass.logging, 0...Command.logBAR):
            throw .direction(class: type, command: command)
        default:
            throw .unknown(frameLength: frame.count, class: type, command: command)
        }
    }
}

/// Dirty-page logging (class 3, DIRTY_PAGE_LOGGING).
public enum DirtyPageLogging: Equatable, Sendable {
    /// Command 0.
    case off
    /// Command 1.
    case on
    /// Command 2: where the bitmap is, in the driver's physical address space.
    case base(address: UInt64, size: UInt64)
    /// Command 3: where the bitmap is in a BAR; ours, needs no knowledge of the BAR's base.
    case bar(offset: UInt64, size: UInt64, bar: UInt32)

    fileprivate func encode(into writer: inout WireWriter) {
        switch self {
        case .off: writer.integer(Command.off)
        case .on: writer.integer(Command.on)
        case .base(let address, let size):
            writer.integer(Command.logBase)
            writer.integer(address)
            writer.integer(size)
        case .bar(let offset, let size, let bar):
            writer.integer(Command.logBAR)
            writer.integer(offset)
            writer.integer(size)
            writer.integer(bar)
            writer.zeros(4)
        }
    }

    fileprivate init(decoding data: [UInt8], command: UInt8) throws(ControlFrameError) {
        var reader = WireReader(data)
        switch command {
        case Command.off: self = .off
        case Command.on: self = .on
        default:
            guard let start = reader.integer(UInt64.self), let size = reader.integer(UInt64.self)
            else { throw .cut(expected: 18, actual: data.count + 2) }
            guard command == Command.logBAR else {
                self = .base(address: start, size: size)
                return
            }
            guard let bar = reader.integer(UInt32.self), reader.skip(4) else {
                throw .cut(expected: 26, actual: data.count + 2)
            }
            self = .bar(offset: start, size: size, bar: bar)
        }
    }
}
