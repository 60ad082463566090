//! RFC 8448 section 3, "Simple 1-RTT Handshake": the records behind the handshake, byte for byte.

use ringway_protocol::tls::{Direction, RecordLayer, Role, Suite};

use crate::pair::open_all;

const CLIENT_SECRET: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
const SERVER_SECRET: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";

const TICKET_RECORD: &str = "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dc\
    f3d11d63c758db289a015940252f55713e061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6c0\
    d4a3d03f75e09c30ba1e62972ac46f75f7b981be63439b2999ce13064615139891d5e4c5b406f16e3fc181a77ca475840025db\
    2f0a77f81b5ab05b94c01346755f69232c86519d86cbeeac87aac347d143f9605d64f650db4d023e70e952ca49fe5137121c74\
    bc2697687e248746d6df353005f3bce18696129c8153556b3b6c6779b37bf15985684f";
const CLIENT_DATA_RECORD: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5\
    b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const SERVER_DATA_RECORD: &str = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d\
    90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
const CLIENT_ALERT_RECORD: &str = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";
const SERVER_ALERT_RECORD: &str = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// An end of the trace: the server has sent its ticket.
fn end(role: Role, server_sequence: u64) -> RecordLayer {
    let (client_secret, server_secret) = (bytes(CLIENT_SECRET), bytes(SERVER_SECRET));
    let client = Direction { secret: &client_secret, sequence: 0 };
    let server = Direction { secret: &server_secret, sequence: server_sequence };
    let (transmit, receive) = if role == Role::Client { (client, server) } else { (server, client) };
    RecordLayer::new(role, Suite::Aes128GcmSha256, transmit, receive).unwrap()
}

#[test]
fn both_ends_send_the_records_of_the_trace() {
    let data: Vec<u8> = (0..50).collect();
    for (role, first, last) in [
        (Role::Client, CLIENT_DATA_RECORD, CLIENT_ALERT_RECORD),
        (Role::Server, SERVER_DATA_RECORD, SERVER_ALERT_RECORD),
    ] {
        let mut sender = end(role, 1);
        let mut sent = Vec::new();
        sender.seal(&data, &mut sent).unwrap();
        assert_eq!(sent, bytes(first));
        sender.close();
        let mut alert = Vec::new();
        sender.take_outgoing(&mut alert, 64).unwrap();
        assert_eq!(alert, bytes(last));
    }
}

#[test]
fn both_ends_open_the_records_of_the_trace_at_every_split() {
    let data: Vec<u8> = (0..50).collect();
    let to_client = [bytes(TICKET_RECORD), bytes(SERVER_DATA_RECORD), bytes(SERVER_ALERT_RECORD)].concat();
    let to_server = [bytes(CLIENT_DATA_RECORD), bytes(CLIENT_ALERT_RECORD)].concat();
    for (role, stream) in [(Role::Client, to_client), (Role::Server, to_server)] {
        for cut in 0..=stream.len() {
            let mut receiver = end(role, 0);
            let (front, rest) = stream.split_at(cut);
            let mut said = open_all(&mut receiver, front).unwrap();
            said.extend(open_all(&mut receiver, rest).unwrap());
            assert_eq!(said, data, "{role:?}, cut at {cut}");
            assert!(receiver.peer_has_closed());
            assert_eq!(receiver.heap_bytes(), 0);
        }
    }
}
