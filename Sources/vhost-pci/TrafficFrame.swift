/// The frames that our own peers send each other: every byte can be checked by the receiver.
///
/// Layout (little-endian but for the ethertype, offsets from the frame's start): 0 destination,
/// 6 source, 12 ethertype, 14 kind u8, 15 reserved u8, 16 magic u32, 20 length u16, 22 reserved u16,
/// 24 sequence u64, 32 frames received so far u64, 40 time of sending u64 (monotonic ns),
/// 48 checksum u64 over bytes 12 … 47 (an echo may swap the addresses), 56 filler: 64-bit words that depend on sequence and place,
/// the last one cut.
struct TrafficFrame: Equatable {
    enum Kind: UInt8 {
        /// Carries a sequence number and counts.
        case payload = 1
        /// Only says how many frames arrived, so that the sender may go on.
        case acknowledgement = 2
        /// Asks whether the other end is there.
        case hello = 3
    }

    /// Why bytes are no good frame.
    enum Damage: Error, Equatable {
        case short
        case foreign
        case length
        case checksum
        case filler
    }

    static let magic: UInt32 = 0x5650_4349
    /// Local experimental ethertype (IEEE 802) 0x88b5, as two bytes on the wire.
    static let etherType = UInt16(0x88b5).bigEndian
    /// Shortest frame that holds all fields and is legal on Ethernet.
    static let minimumLength = 60
    static let maximumLength = 1518
    private static let fillerOffset = 56

    var destination: MACAddress
    var source: MACAddress
    var kind: Kind
    var sequence: UInt64
    var received: UInt64
    var sentAt: UInt64
    /// Length of the whole frame in bytes.
    var length: Int

    init(
        destination: MACAddress,
        source: MACAddress,
        kind: Kind,
        sequence: UInt64,
        received: UInt64,
        sentAt: UInt64,
        length: Int
    ) {
        self.destination = destination
        self.source = source
        self.kind = kind
        self.sequence = sequence
        self.received = received
        self.sentAt = sentAt
        self.length = min(max(length, Self.minimumLength), Self.maximumLength)
    }

    /// Writes the frame at the front of `buffer` and says how long it is; 0 when it does not fit.
    func write(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        guard buffer.count >= length else { return 0 }
        unsafe buffer.copyBytes(from: destination.bytes)
        unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[6...]).copyBytes(from: source.bytes)
        unsafe buffer.storeBytes(of: Self.etherType, toByteOffset: 12, as: UInt16.self)
        unsafe buffer.storeBytes(of: kind.rawValue, toByteOffset: 14, as: UInt8.self)
        unsafe buffer.storeBytes(of: 0, toByteOffset: 15, as: UInt8.self)
        unsafe buffer.storeBytes(of: Self.magic, toByteOffset: 16, as: UInt32.self)
        unsafe buffer.storeBytes(of: UInt16(length), toByteOffset: 20, as: UInt16.self)
        unsafe buffer.storeBytes(of: 0, toByteOffset: 22, as: UInt16.self)
        unsafe buffer.storeBytes(of: sequence, toByteOffset: 24, as: UInt64.self)
        unsafe buffer.storeBytes(of: received, toByteOffset: 32, as: UInt64.self)
        unsafe buffer.storeBytes(of: sentAt, toByteOffset: 40, as: UInt64.self)
        let sum = unsafe Self.checksum(UnsafeRawBufferPointer(buffer))
        unsafe buffer.storeBytes(of: sum, toByteOffset: 48, as: UInt64.self)
        var at = Self.fillerOffset
        while at + 8 <= length {
            unsafe buffer.storeBytes(of: filler(at), toByteOffset: at, as: UInt64.self)
            at += 8
        }
        var last = filler(at)
        while at < length {
            unsafe buffer.storeBytes(
                of: UInt8(truncatingIfNeeded: last),
                toByteOffset: at,
                as: UInt8.self
            )
            last >>= 8
            at += 1
        }
        return length
    }

    /// True for a frame of another protocol that is not addressed to this station: nothing that a
    /// peer of ours sent, however damaged on its way, as long as addresses and type are whole.
    static func isForeign(_ bytes: UnsafeRawBufferPointer, at station: MACAddress) -> Bool {
        guard bytes.count >= 14 else { return false }
        let type = unsafe bytes.loadUnaligned(fromByteOffset: 12, as: UInt16.self)
        return unsafe type != Self.etherType && !bytes[0..<6].elementsEqual(station.bytes)
    }

    /// The length that a frame says it has; for frames that `write` made.
    static func length(of bytes: UnsafeRawBufferPointer) -> Int {
        Int(unsafe bytes.loadUnaligned(fromByteOffset: 20, as: UInt16.self))
    }

    /// Reads and checks a frame of exactly `bytes.count` bytes.
    init(reading bytes: UnsafeRawBufferPointer) throws(Damage) {
        guard bytes.count >= Self.minimumLength else { throw .short }
        let type = unsafe bytes.loadUnaligned(fromByteOffset: 12, as: UInt16.self)
        let kind = unsafe bytes.loadUnaligned(fromByteOffset: 14, as: UInt8.self)
        let magic = unsafe bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self)
        guard type == Self.etherType, magic == Self.magic, let known = Kind(rawValue: kind),
            let destination = unsafe MACAddress(bytes: Array(bytes[0..<6])),
            let source = unsafe MACAddress(bytes: Array(bytes[6..<12]))
        else { throw .foreign }
        let length = Int(unsafe bytes.loadUnaligned(fromByteOffset: 20, as: UInt16.self))
        guard length == bytes.count else { throw .length }
        let sum = unsafe bytes.loadUnaligned(fromByteOffset: 48, as: UInt64.self)
        guard unsafe sum == Self.checksum(bytes) else { throw .checksum }
        self.init(
            destination: destination,
            source: source,
            kind: known,
            sequence: unsafe bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self),
            received: unsafe bytes.loadUnaligned(fromByteOffset: 32, as: UInt64.self),
            sentAt: unsafe bytes.loadUnaligned(fromByteOffset: 40, as: UInt64.self),
            length: length
        )
        guard unsafe hasGoodFiller(bytes) else { throw .filler }
    }

    private func hasGoodFiller(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var at = Self.fillerOffset
        while at + 8 <= length {
            let word = unsafe bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)
            guard word == filler(at) else { return false }
            at += 8
        }
        var last = filler(at)
        while at < length {
            guard unsafe bytes[at] == UInt8(truncatingIfNeeded: last) else { return false }
            last >>= 8
            at += 1
        }
        return true
    }

    private func filler(_ offset: Int) -> UInt64 {
        (sequence &+ UInt64(offset)) &* 0x9e37_79b9_7f4a_7c15
    }

    /// Folds bytes 12 … 47, so that a changed or moved byte shows.
    private static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        let type = unsafe bytes.loadUnaligned(fromByteOffset: 12, as: UInt32.self)
        var sum = 0xcbf2_9ce4_8422_2325 ^ UInt64(type)
        for offset in stride(from: 16, to: 48, by: 8) {
            let word = unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            sum = (sum ^ word) &* 0x0000_0100_0000_01b3
            sum ^= sum >> 29
        }
        return sum
    }
}
