internal import HostSystem

extension MessageHeader {
    /// Most bytes of one message, its header included: a transfer of 1 MiB and the fixed fields before
    /// it (VFU-H-05, HI-E4).
    public static let largestMessage = size + Capabilities.defaultTransferSize + 4096
}

extension FrameFormat {
    /// Messages of vfio-user: a header that states the length of the whole.
    static let vfioUser = FrameFormat(
        headerSize: MessageHeader.size,
        unsentLimit: 4 * MessageHeader.largestMessage,
        readAhead: 4096
    ) { bytes in
        guard let header = MessageHeader(bytes), let size = Int(exactly: header.messageSize),
            (MessageHeader.size...MessageHeader.largestMessage).contains(size)
        else { return nil }
        return size - MessageHeader.size
    }
}
